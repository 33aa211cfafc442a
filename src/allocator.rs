//! How long the memory of freed tensors stays with the process, where mimalloc is the global allocator.
//!
//! A step of training allocates what the step before it freed. By itself mimalloc hands memory that lay unused for a tenth of a
//! second back to the kernel, which clears every page again when it is next touched: a quarter of the time of a reconstruction
//! step, and more of MetaAug's (`benches/NOTES.md`).

use std::ffi::{c_int, c_long};

/// mimalloc's `mi_option_purge_delay`, a stable option for which its bindings have no name.
const PURGE_DELAY: c_int = 15;
/// Longer than any step; mimalloc multiplies it by ten.
const PURGE_DELAY_MS: c_long = 60_000;

/// Keeps freed memory until [`hand_back`], unless the environment (`MIMALLOC_PURGE_DELAY`) says otherwise. To be called before
/// other threads run.
pub fn keep_freed() {
    // SAFETY: stores a number; no other thread reads the option yet.
    #[allow(unsafe_code)]
    unsafe {
        libmimalloc_sys::mi_option_set_default(PURGE_DELAY, PURGE_DELAY_MS);
    }
}

/// Hands back what is free now.
pub fn hand_back() {
    // SAFETY: may be called at any time, from any thread.
    #[allow(unsafe_code)]
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}
