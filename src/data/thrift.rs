//! Thrift's compact protocol, as far as it takes to look at what the metadata of a Parquet file claim.
//!
//! The `parquet` crate takes memory for what a list says its length is, and calls itself for what a column says its children
//! are. So these are looked at first, by something that takes no memory and counts how deep it is.

/// Structures and lists within each other; those of Parquet are eight at most.
const DEEPEST: usize = 16;
/// Entries of the longest list: a chunk of a column or a page each.
const LONGEST: u64 = 1 << 20;

/// Kinds of values.
pub(super) const BINARY: u8 = 8;
pub(super) const LIST: u8 = 9;
pub(super) const STRUCTURE: u8 = 12;

/// Bytes in which values follow each other.
pub(super) struct Thrift<'a> {
    bytes: &'a [u8],
    /// Bytes read.
    pub at: usize,
    depth: usize,
}

impl<'a> Thrift<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, depth: 0 }
    }

    /// Reads a structure: `take` is told number and kind of each field, and says whether it has read it; the others are skipped.
    ///
    /// Errors: bytes that end or are none; too much within each other.
    pub fn structure(
        &mut self,
        take: &mut dyn FnMut(&mut Self, i64, u8) -> Result<bool, String>,
    ) -> Result<(), String> {
        let mut number = 0i64;
        self.deeper(|thrift| {
            loop {
                let head = thrift.byte()?;
                if head == 0 {
                    return Ok(());
                }
                number = match head >> 4 {
                    0 => thrift.integer()?,
                    step => number.wrapping_add(i64::from(step)),
                };
                if !take(thrift, number, head & 15)? {
                    thrift.skip(head & 15)?;
                }
            }
        })
    }

    /// Number and kind of the entries of a list, which follow. Errors: more than there are bytes for.
    pub fn list(&mut self) -> Result<(u64, u8), String> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.unsigned()?,
            count => u64::from(count),
        };
        match count > LONGEST.min((self.bytes.len() - self.at) as u64) {
            true => Err(format!("a list of {count} entries in {} bytes", self.bytes.len())),
            false => Ok((count, head & 15)),
        }
    }

    pub fn integer(&mut self) -> Result<i64, String> {
        let zigzag = self.unsigned()?;
        Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }

    fn skip(&mut self, kind: u8) -> Result<(), String> {
        match kind {
            // A field that is true or false says so by its kind.
            1 | 2 => Ok(()),
            3 => self.byte().map(drop),
            4..=6 => self.unsigned().map(drop),
            7 => self.pass(8),
            BINARY => {
                let len = self.unsigned()?;
                self.pass(len)
            }
            LIST | 10 => {
                let (count, kind) = self.list()?;
                self.deeper(|thrift| (0..count).try_for_each(|_| thrift.skip_entry(kind)))
            }
            STRUCTURE => self.structure(&mut |_, _, _| Ok(false)),
            kind => Err(format!("a field of kind {kind}, which Parquet does not have")),
        }
    }

    fn skip_entry(&mut self, kind: u8) -> Result<(), String> {
        if matches!(kind, 1 | 2) { self.byte().map(drop) } else { self.skip(kind) }
    }

    fn deeper(&mut self, read: impl FnOnce(&mut Self) -> Result<(), String>) -> Result<(), String> {
        if self.depth == DEEPEST {
            return Err(format!("more than {DEEPEST} structures within each other"));
        }
        self.depth += 1;
        read(self)?;
        self.depth -= 1;
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, String> {
        let byte = self.bytes.get(self.at).copied().ok_or_else(|| self.ended())?;
        self.at += 1;
        Ok(byte)
    }

    fn pass(&mut self, bytes: u64) -> Result<(), String> {
        let end = usize::try_from(bytes).ok().and_then(|bytes| self.at.checked_add(bytes));
        self.at = end.filter(|end| *end <= self.bytes.len()).ok_or_else(|| self.ended())?;
        Ok(())
    }

    fn unsigned(&mut self) -> Result<u64, String> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err("a number of more than 64 bits".to_string())
    }

    fn ended(&self) -> String {
        format!("they end after {} bytes", self.bytes.len())
    }
}
