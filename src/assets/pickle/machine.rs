//! The pickle machine of Python, protocols 2 to 5, as far as checkpoints need it: it notes what a pickle would call and calls
//! nothing.
//!
//! Objects lie in one list and refer to each other by position, so that neither nesting nor sharing costs more than the
//! pickle's own bytes: nothing here recurses, and a memo that doubles its content at every step doubles nothing.

use std::collections::HashMap;

/// Largest pickle that is read: the descriptions of 100,000 tensors take less.
pub(super) const LIMIT_BYTES: usize = 32 << 20;
/// Most operations of a pickle: one may take a hundred times its own byte in memory. The descriptions of 100,000 tensors are fewer.
const LIMIT_STEPS: usize = 4 << 20;

/// Position of an object in its [`Pickle`].
pub(super) type Id = usize;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Object {
    /// What has no part in a table of tensors: `None`, floats, bytes.
    Other,
    Int(i128),
    Text(String),
    /// Something to be called, `module` and `name`.
    Global(String, String),
    Tuple(Vec<Id>),
    /// Lists and sets.
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// `callable(*args)`.
    Call {
        callable: Id,
        args: Id,
    },
    /// What lies beside the pickle, by its description.
    Stored(Id),
}

/// What a pickle describes.
#[derive(Debug)]
pub(super) struct Pickle {
    objects: Vec<Object>,
    pub root: Id,
}

/// What a pickle may call: module and name.
pub(super) type Permitted = fn(&str, &str) -> bool;

impl Pickle {
    pub fn get(&self, id: Id) -> &Object {
        &self.objects[id]
    }

    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// Reads one pickle from the beginning of `bytes` and returns it with the rest of them.
    ///
    /// Errors: what is wrong with it; the first thing that it would call and is not `permitted`.
    pub fn read(bytes: &[u8], permitted: Permitted) -> Result<(Self, &[u8]), String> {
        let mut machine = Machine {
            bytes: &bytes[..bytes.len().min(LIMIT_BYTES)],
            at: 0,
            objects: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            permitted,
        };
        let mut steps = 0;
        while machine.step()? {
            steps += 1;
            if steps > LIMIT_STEPS {
                return Err(format!("its pickle has more than {LIMIT_STEPS} operations"));
            }
        }
        let root = machine.pop()?;
        Ok((Self { objects: machine.objects, root }, &bytes[machine.at..]))
    }
}

struct Machine<'b> {
    bytes: &'b [u8],
    at: usize,
    objects: Vec<Object>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    permitted: Permitted,
}

impl<'b> Machine<'b> {
    /// Executes one operation; `false` after the last.
    fn step(&mut self) -> Result<bool, String> {
        let start = self.at;
        match self.take(1)?[0] {
            // PROTO and FRAME only say what follows.
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'.' => return Ok(false),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_to_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            // None, False, True, BINFLOAT.
            b'N' => self.push(Object::Other),
            0x88 => self.push(Object::Int(1)),
            0x89 => self.push(Object::Int(0)),
            b'G' => {
                self.take(8)?;
                self.push(Object::Other);
            }
            b'J' => {
                let bits = self.number(4)? as u32;
                self.push(Object::Int(i128::from(bits.cast_signed())));
            }
            b'K' => self.integer(1)?,
            b'M' => self.integer(2)?,
            0x8a => self.long(1)?,
            0x8b => self.long(4)?,
            // (SHORT_)BINUNICODE(8), and the strings of Python 2.
            0x8c | b'U' => self.text(1)?,
            b'X' | b'T' => self.text(4)?,
            0x8d => self.text(8)?,
            // (SHORT_)BINBYTES(8), BYTEARRAY8.
            b'C' => self.opaque(1)?,
            b'B' => self.opaque(4)?,
            0x8e | 0x96 => self.opaque(8)?,
            b')' => self.push(Object::Tuple(Vec::new())),
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Object::Tuple(items));
            }
            b']' | 0x8f => self.push(Object::List(Vec::new())),
            b'l' | 0x91 => {
                let items = self.pop_to_mark()?;
                self.push(Object::List(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            b'}' => self.push(Object::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push(Object::Dict(Vec::new()));
                self.set(&items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set(&items)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (&self.objects[module], &self.objects[name]) {
                    (Object::Text(module), Object::Text(name)) => self.global(module.clone(), name.clone())?,
                    _ => return Err(format!("byte {start} of its pickle names no function")),
                }
            }
            b'R' | 0x81 => self.call()?,
            0x92 => {
                self.pop()?;
                self.call()?;
            }
            // The state of an object is no part of a table: that of an OrderedDict is `_metadata`.
            b'b' => drop(self.pop()?),
            b'Q' => {
                let id = self.pop()?;
                self.push(Object::Stored(id));
            }
            b'q' => self.put(1)?,
            b'r' => self.put(4)?,
            0x94 => {
                let (next, top) = (self.memo.len() as u32, self.top()?);
                self.memo.insert(next, top);
            }
            b'h' => self.recall(1)?,
            b'j' => self.recall(4)?,
            code => return Err(format!("byte {start} of its pickle is {code:#04x}, which checkpoints do not have")),
        }
        Ok(true)
    }

    fn take(&mut self, len: usize) -> Result<&'b [u8], String> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else {
            return Err(match self.bytes.len() {
                LIMIT_BYTES => format!("its pickle has more than {LIMIT_BYTES} bytes"),
                len => format!("its pickle breaks off after {len} bytes"),
            });
        };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// An unsigned number of up to eight bytes, the lowest first.
    fn number(&mut self, len: usize) -> Result<u64, String> {
        Ok(self.take(len)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// Bytes behind a length of `len` bytes.
    fn counted(&mut self, len: usize) -> Result<&'b [u8], String> {
        let count = self.number(len)?;
        self.take(usize::try_from(count).unwrap_or(usize::MAX))
    }

    fn line(&mut self) -> Result<String, String> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let line = String::from_utf8_lossy(self.take(len)?).trim_end_matches('\r').to_string();
        self.take(1)?;
        Ok(line)
    }

    fn push(&mut self, object: Object) {
        self.objects.push(object);
        self.stack.push(self.objects.len() - 1);
    }

    fn pop(&mut self) -> Result<Id, String> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// The uppermost object above the last mark.
    fn top(&self) -> Result<Id, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let top = self.stack[floor.min(self.stack.len())..].last();
        top.copied().ok_or_else(|| format!("byte {} of its pickle takes an object where there is none", self.at))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().filter(|mark| *mark <= self.stack.len());
        let mark = mark.ok_or_else(|| format!("byte {} of its pickle goes back to no mark", self.at))?;
        Ok(self.stack.split_off(mark))
    }

    fn integer(&mut self, len: usize) -> Result<(), String> {
        let number = self.number(len)?;
        self.push(Object::Int(number.into()));
        Ok(())
    }

    /// An integer of any size in two's complement; those beyond 16 bytes have no part in a table.
    fn long(&mut self, len: usize) -> Result<(), String> {
        let bytes = self.counted(len)?;
        let sign = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { -1 } else { 0 };
        let number = bytes.iter().rev().fold(sign, |number: i128, byte| number << 8 | i128::from(*byte));
        self.push(if bytes.len() <= 16 { Object::Int(number) } else { Object::Other });
        Ok(())
    }

    fn text(&mut self, len: usize) -> Result<(), String> {
        let text = String::from_utf8_lossy(self.counted(len)?).into_owned();
        self.push(Object::Text(text));
        Ok(())
    }

    fn opaque(&mut self, len: usize) -> Result<(), String> {
        self.counted(len)?;
        self.push(Object::Other);
        Ok(())
    }

    fn tuple(&mut self, len: usize) -> Result<(), String> {
        let mut items = (0..len).map(|_| self.pop()).collect::<Result<Vec<Id>, _>>()?;
        items.reverse();
        self.push(Object::Tuple(items));
        Ok(())
    }

    fn append(&mut self, items: Vec<Id>) -> Result<(), String> {
        let list = self.top()?;
        match &mut self.objects[list] {
            Object::List(list) => list.extend(items),
            // An object of a class of its own: what it holds has no part in a table.
            Object::Call { .. } => {}
            _ => return Err(format!("byte {} of its pickle adds to what is no list", self.at)),
        }
        Ok(())
    }

    /// Adds keys and values, in turn, to the dictionary on top.
    fn set(&mut self, items: &[Id]) -> Result<(), String> {
        let dict = self.top()?;
        let (pairs, rest) = items.as_chunks::<2>();
        match &mut self.objects[dict] {
            Object::Dict(dict) if rest.is_empty() => dict.extend(pairs.iter().map(|[key, value]| (*key, *value))),
            Object::Call { .. } if rest.is_empty() => {}
            _ => return Err(format!("byte {} of its pickle adds to what is no dictionary", self.at)),
        }
        Ok(())
    }

    fn global(&mut self, module: String, name: String) -> Result<(), String> {
        if !(self.permitted)(&module, &name) {
            return Err(format!(
                "its pickle asks for `{module:.80}.{name:.80}`, which no table of tensors needs; nothing was executed"
            ));
        }
        self.push(Object::Global(module, name));
        Ok(())
    }

    fn call(&mut self) -> Result<(), String> {
        let args = self.pop()?;
        let callable = self.pop()?;
        let makes_dict = matches!(&self.objects[callable], Object::Global(module, name)
            if module == "collections" && matches!(name.as_str(), "OrderedDict" | "defaultdict"));
        self.push(if makes_dict { Object::Dict(Vec::new()) } else { Object::Call { callable, args } });
        Ok(())
    }

    fn put(&mut self, len: usize) -> Result<(), String> {
        let (key, top) = (self.number(len)? as u32, self.top()?);
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, len: usize) -> Result<(), String> {
        let key = self.number(len)? as u32;
        let known = self.memo.get(&key).copied();
        self.stack.push(known.ok_or_else(|| format!("its pickle recalls object {key}, which it has not noted"))?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Pickle, String> {
        Pickle::read(bytes, |module, _| module == "collections").map(|(pickle, _)| pickle)
    }

    #[test]
    fn numbers_have_their_sign_and_size() {
        for (bytes, value) in [
            (&b"K\xff."[..], 255),
            (b"M\x01\x02.", 513),
            (b"J\xfe\xff\xff\xff.", -2),
            (b"\x8a\x00.", 0),
            (b"\x8a\x01\xff.", -1),
            (b"\x8a\x02\xff\x00.", 255),
            (b"\x8b\x02\x00\x00\x00\x00\x80.", -32768),
        ] {
            let pickle = read(bytes).unwrap();
            assert_eq!(pickle.get(pickle.root), &Object::Int(value), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_shared_is_one_object_also_when_it_is_filled_later() {
        // {"a": d, "b": d} with d an OrderedDict that is filled after it was noted.
        let bytes = b"}(X\x01\0\0\0accollections\nOrderedDict\n)Rq\x01X\x01\0\0\0wK\x07sX\x01\0\0\0bh\x01u.";
        let pickle = read(bytes).unwrap();
        let Object::Dict(entries) = pickle.get(pickle.root) else { panic!("{pickle:?}") };
        assert_eq!((entries.len(), entries[0].1), (2, entries[1].1));
        assert!(matches!(pickle.get(entries[0].1), Object::Dict(inner) if inner.len() == 1));
    }

    #[test]
    fn neither_nesting_nor_doubling_grows_beyond_the_pickle() {
        let deep = [&b")"[..], &vec![0x85; 1 << 20], b"."].concat();
        assert_eq!(read(&deep).unwrap().objects().len(), (1 << 20) + 1);
        let long = [&b")"[..], &vec![b'N'; LIMIT_BYTES / 2], b"."].concat();
        assert!(read(&long).unwrap_err().contains("more than 4194304 operations"));
        // Every step holds the one before twice: written out, 2^100,000 objects.
        let doubled = [&b")"[..], &b"q\x00h\x00\x86".repeat(100_000), b"."].concat();
        assert_eq!(read(&doubled).unwrap().objects().len(), 100_001);
    }

    #[test]
    fn whatever_is_wrong_is_one_message() {
        for (bytes, problem) in [
            (&b""[..], "breaks off after 0 bytes"),
            (b"K", "breaks off after 1 bytes"),
            (b"X\xff\xff\xff\xffa", "breaks off"),
            (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffa", "breaks off"),
            (b".", "where there is none"),
            (b"R.", "where there is none"),
            (b"K\x01(R.", "where there is none"),
            (b"t.", "no mark"),
            (b"K\x01K\x02a.", "no list"),
            (b"](K\x01u.", "no dictionary"),
            (b"h\x05.", "recalls object 5"),
            (b"K\x01K\x02\x93.", "names no function"),
            (b"cposix\nsystem\n.", "`posix.system`"),
            (b"\x8c\x05posix\x8c\x06system\x93.", "`posix.system`"),
            (b"\xfe.", "0xfe"),
        ] {
            let error = read(bytes).unwrap_err();
            assert!(error.contains(problem), "{bytes:?}: {error}");
        }
    }
}
