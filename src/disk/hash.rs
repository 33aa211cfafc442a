//! What tells one content from another.

use sha2::{Digest, Sha256};

/// SHA-256 of the concatenated parts, in lower-case hexadecimal.
pub fn sha256(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
