//! What a Parquet file claims: how many columns, rows and bytes there are, which the `parquet` crate takes memory for before it
//! looks whether it is true. A file of a few hundred bytes must not fill the memory, nor one of a megabyte by unpacking.

use super::thrift::{LIST, STRUCTURE, Thrift};
use flate2::read::MultiGzDecoder;
use parquet::basic::Compression;
use parquet::file::metadata::ColumnChunkMetaData;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

/// Bytes of metadata: those of ImageNet's shards take a thousandth of it.
pub(super) const LARGEST_FOOTER: u64 = 1 << 24;
/// Length and magic number at the very end.
const END: u64 = 8;
/// Columns and groups of columns. The crate calls itself for each of those within each other.
const MOST_COLUMNS: i64 = 256;
/// Bytes of a page's header, statistics of whole images in it.
const LARGEST_HEADER: u64 = 1 << 22;
/// Bytes of an unpacked page: so many, and so many times its bytes in the file. Image files hardly shrink; labels are few bytes.
const UNPACKED: u64 = 1 << 26;
const UNPACKED_TIMES: u64 = 16;

/// Errors: what of the metadata at the end of `file` cannot be true, or be meant. Whether they are Parquet's, the crate says.
pub(super) fn check_footer(file: &mut File) -> Result<(), String> {
    let io = |error: std::io::Error| error.to_string();
    let len = file.seek(SeekFrom::End(0)).map_err(io)?;
    let Some(before) = len.checked_sub(END) else { return Ok(()) };
    let end = bytes_at(file, before, END).map_err(io)?;
    let [a, b, c, d, b'P', b'A', b'R', b'1'] = end[..] else { return Ok(()) };
    let bytes = u64::from(u32::from_le_bytes([a, b, c, d]));
    match before.checked_sub(bytes) {
        None => Ok(()),
        Some(_) if bytes > LARGEST_FOOTER => {
            Err(format!("{bytes} bytes of metadata; at most {LARGEST_FOOTER} are read"))
        }
        Some(start) => check_metadata(&bytes_at(file, start, bytes).map_err(io)?, len),
    }
}

/// The same of metadata alone, of a file of `len` bytes.
pub(super) fn check_metadata(metadata: &[u8], len: u64) -> Result<(), String> {
    // Fields of FileMetaData: 2 the columns, 3 the rows, 4 the row groups, whose field 3 is their rows.
    const COLUMNS: i64 = 2;
    const ROWS: i64 = 3;
    const GROUPS: i64 = 4;
    let rows_of = |rows: i64| match u64::try_from(rows) {
        // Each has an image, of a byte at least.
        Ok(rows) if rows <= len => Ok(rows),
        _ => Err(format!("{rows} rows in {len} bytes")),
    };
    let mut rows = 0;
    let read = Thrift::new(metadata).structure(&mut |thrift, field, kind| match (field, kind) {
        (COLUMNS, LIST) => check_columns(thrift).map(|()| true),
        (ROWS, 6) => rows_of(thrift.integer()?).map(|_| true),
        (GROUPS, LIST) => {
            let (groups, kind) = thrift.list()?;
            if kind != STRUCTURE {
                return Err(format!("row groups of kind {kind}"));
            }
            for _ in 0..groups {
                thrift.structure(&mut |thrift, field, kind| match (field, kind) {
                    (ROWS, 6) => {
                        rows += rows_of(thrift.integer()?)?;
                        Ok(true)
                    }
                    _ => Ok(false),
                })?;
            }
            rows_of(i64::try_from(rows).unwrap_or(i64::MAX)).map(|_| true)
        }
        _ => Ok(false),
    });
    read.map_err(|problem| format!("its metadata: {problem}"))
}

/// Errors: too many columns, or columns within columns, whose number the crate believes.
fn check_columns(thrift: &mut Thrift) -> Result<(), String> {
    const CHILDREN: i64 = 5;
    let (columns, kind) = thrift.list()?;
    if columns as i64 > MOST_COLUMNS || kind != STRUCTURE {
        return Err(format!("{columns} columns; at most {MOST_COLUMNS} are read"));
    }
    for _ in 0..columns {
        thrift.structure(&mut |thrift, field, kind| match (field, kind) {
            (CHILDREN, 5) => match thrift.integer()? {
                children if (0..=MOST_COLUMNS).contains(&children) => Ok(true),
                children => Err(format!("a column of {children} columns")),
            },
            _ => Ok(false),
        })?;
    }
    Ok(())
}

/// Errors: what of the pages of a chunk of a column cannot be true, or would fill the memory.
pub(super) fn check_pages(file: &mut File, chunk: &ColumnChunkMetaData) -> Result<(), String> {
    let io = |error: std::io::Error| error.to_string();
    let len = file.seek(SeekFrom::End(0)).map_err(io)?;
    let first = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
    let (first, bytes) = (u64::try_from(first), u64::try_from(chunk.compressed_size()));
    let (Ok(mut at), Ok(bytes)) = (first, bytes) else { return Err("a column before the file".to_string()) };
    let Some(end) = at.checked_add(bytes).filter(|end| *end <= len) else {
        return Err("a column behind the end of the file".to_string());
    };
    while at < end {
        let page = Page::at(file, at, end)?;
        at = page.start + page.packed;
        if at > end || page.unpacked > UNPACKED + UNPACKED_TIMES * page.packed {
            return Err(format!("a page of {} bytes that becomes {}", page.packed, page.unpacked));
        }
        check_unpacked(file, &page, chunk.compression())?;
    }
    Ok(())
}

/// What the header of a page says.
#[derive(Default)]
struct Page {
    /// Where its content starts in the file.
    start: u64,
    packed: u64,
    unpacked: u64,
    /// Bytes at its start that are not packed.
    levels: u64,
}

impl Page {
    /// The page whose header starts at `at`, of a chunk that ends at `end`.
    fn at(file: &mut File, at: u64, end: u64) -> Result<Self, String> {
        // Most headers are short: more is read only where that is not enough.
        let mut read = 1 << 10;
        loop {
            let wanted = (end - at).min(read);
            let header = bytes_at(file, at, wanted).map_err(|error| error.to_string())?;
            match Self::of(&header) {
                Ok(page) => return Ok(Self { start: at + page.start, ..page }),
                Err(_) if wanted < end - at && read < LARGEST_HEADER => read <<= 4,
                Err(problem) => return Err(format!("the header of a page: {problem}")),
            }
        }
    }

    fn of(header: &[u8]) -> Result<Self, String> {
        const SECOND_VERSION: i64 = 8;
        let mut page = Page::default();
        let mut thrift = Thrift::new(header);
        let size = |thrift: &mut Thrift| u64::try_from(thrift.integer()?).map_err(|_| "a size below 0".to_string());
        thrift.structure(&mut |thrift, field, kind| {
            match (field, kind) {
                (2, 5) => page.unpacked = size(thrift)?,
                (3, 5) => page.packed = size(thrift)?,
                (SECOND_VERSION, STRUCTURE) => thrift.structure(&mut |thrift, field, kind| match (field, kind) {
                    (5 | 6, 5) => {
                        page.levels += size(thrift)?;
                        Ok(true)
                    }
                    _ => Ok(false),
                })?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        page.start = thrift.at as u64;
        Ok(page)
    }
}

/// Errors: a page that becomes more than its header says, in those ways of packing whose reader in the crate does not look.
fn check_unpacked(file: &mut File, page: &Page, compression: Compression) -> Result<(), String> {
    if !matches!(compression, Compression::GZIP(_) | Compression::BROTLI(_)) || page.levels > page.packed {
        return Ok(());
    }
    let packed = bytes_at(file, page.start + page.levels, page.packed - page.levels);
    let packed = packed.map_err(|error| error.to_string())?;
    let unpacked: &mut dyn Read = match compression {
        Compression::GZIP(_) => &mut MultiGzDecoder::new(&packed[..]),
        _ => &mut brotli_decompressor::Decompressor::new(&packed[..], 1 << 12),
    };
    // What is wrong with it otherwise the crate says.
    let bytes = std::io::copy(&mut unpacked.take(page.unpacked + 1), &mut std::io::sink()).unwrap_or(0);
    match bytes > page.unpacked {
        true => Err(format!("a page that becomes more than the {} bytes it claims", page.unpacked)),
        false => Ok(()),
    }
}

/// `len` bytes from `at` on; fewer where the file has ended.
fn bytes_at(file: &mut File, at: u64, len: u64) -> std::io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.take(len).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The version and a list of `columns` columns with `children` each, and so many `rows`.
    fn metadata(columns: u32, children: &[u8], rows: &[u8]) -> Vec<u8> {
        let count = [columns as u8 | 0x80, (columns >> 7) as u8 | 0x80, (columns >> 14) as u8];
        let column = [&[0x48, 1, b'x', 0x15][..], children, &[0]].concat();
        let columns = column.repeat(columns as usize);
        [&[0x15, 2, 0x19, 0xfc][..], &count, &columns, &[0x16], rows, &[0x19, 0x0c, 0]].concat()
    }

    #[test]
    fn columns_within_each_other_and_what_nobody_has_room_for_are_refused() {
        check_metadata(&metadata(3, &[2], &[6]), 1000).unwrap();
        let largest = [0xfe, 0xff, 0xff, 0xff, 0x0f];
        for (metadata, problem) in [
            (metadata(100_000, &[2], &[6]), "100000 columns"),
            (metadata(3, &largest, &[6]), "a column of 2147483647 columns"),
            (metadata(3, &[1], &[6]), "a column of -1 columns"),
            (metadata(3, &[2], &largest), "2147483647 rows in 1000 bytes"),
            (metadata(3, &[2], &[6])[..20].to_vec(), "they end after 20 bytes"),
            (vec![0x29, 0xfc, 0xff, 0xff, 0x03], "a list of 65535 entries in 5 bytes"),
            (vec![0x1c; 1000], "more than 16 structures within each other"),
        ] {
            let error = check_metadata(&metadata, 1000).unwrap_err();
            assert!(error.starts_with("its metadata: ") && error.contains(problem), "{error}");
        }
    }

    #[test]
    fn a_page_may_not_become_more_than_it_claims() {
        let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut zipped, &vec![0; 1 << 20]).unwrap();
        let zipped = zipped.finish().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &[&[7; 3][..], &zipped].concat()).unwrap();
        let page = |unpacked| Page { start: 0, packed: 3 + zipped.len() as u64, unpacked, levels: 3 };
        let gzip = Compression::GZIP(Default::default());
        check_unpacked(&mut file, &page(1 << 20), gzip).unwrap();
        let error = check_unpacked(&mut file, &page(1000), gzip).unwrap_err();
        assert_eq!(error, "a page that becomes more than the 1000 bytes it claims");
    }
}
