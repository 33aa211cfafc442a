//! Which shards of a data set on the Hub a cell needs: all of the test split, and some of the pool's.
//!
//! A calibration sample is drawn from the fewest shards that hold sixteen times as many images as are drawn, and as many as a
//! sample of 1,024 asks for: two seeds have at most a sixteenth of their images in common on average, and up to 1,024 images a sample
//! stays the beginning of a larger one. The shards are the first of an order that spreads over all, whatever their number:
//! 0, 147, 73, 220, ... of ImageNet's 294, of which these four are enough. So what is drawn depends on the commit, the number of
//! images and the seed alone.
//!
//! How many rows a shard has stands in its last bytes, which are asked for alone where it is not in the cache.

use super::hub_set::HubSet;
use super::shard_claims::{LARGEST_FOOTER, check_footer, check_metadata};
use super::shard_names::{DATA, POOL, TEST, check_set, shards_among, wanted};
use crate::disk::foreign::{caught, open, unreadable};
use crate::error::{Error, Result};
use crate::hub::{Hub, HubEntry, HubRepo, file_in};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaDataReader;
use parquet::file::reader::{FileReader, SerializedFileReader};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// How many times the images of a sample the shards hold that it is drawn from.
const IMAGES_PER_DRAWN: usize = 16;
/// Samples of fewer images are drawn from the shards of one of so many.
const SAMPLE: usize = 1024;
/// Bytes at the end of a shard that are asked for first; metadata that take more are asked for again.
const FOOTER_BYTES: u64 = 1 << 17;
/// Length and magic number at the very end.
const END_BYTES: usize = 8;
/// The branch on which the Hub has data sets of other formats as Parquet.
const CONVERTED: &str = "refs%2Fconvert%2Fparquet";
/// How many names an error lists.
const NAMED: usize = 8;

/// What of a data set on the Hub is needed.
#[derive(Clone, Debug)]
pub struct HubShards {
    /// At its commit.
    pub set: HubSet,
    pub test: Vec<HubEntry>,
    /// Those of the pool that the sample is drawn from, in the order of their names.
    pub pool: Vec<HubEntry>,
    /// How many shards the whole pool has.
    pub of: usize,
}

impl HubShards {
    /// The shards of `set` that a sample of `images` needs; nothing but the ends of some is downloaded.
    ///
    /// Errors: a repository, revision, configuration or split that is not there; several configurations and none named; names
    /// that are not those of one set; no Parquet.
    pub fn choose(set: &HubSet, images: usize, hub: &Hub) -> Result<Self> {
        let set = set.of(hub.resolve(&set.repo)?);
        let entries = hub.list(&set.repo)?;
        let folder = folder(&set, &entries)?;
        let split = |names: &[&str]| {
            let shards: Vec<HubEntry> = shards_among(&entries, &folder, names).into_iter().cloned().collect();
            if shards.is_empty() {
                return Err(refused(&set, &format!("it has no {}", found(&wanted(names), &entries, &folder))));
            }
            // With the repository before them, for messages.
            let paths: Vec<PathBuf> =
                shards.iter().map(|shard| PathBuf::from(format!("{}/{}", set.repo, shard.path))).collect();
            check_set(&paths, true).map(|()| shards)
        };
        // Of a part of the pool's shards nobody could say that it is spread over all.
        let (test, all) = (split(&TEST)?, split(&POOL)?);
        let pool = drawn_from(&set.repo, &all, images, hub)?;
        Ok(Self { set, test, pool, of: all.len() })
    }

    /// Every shard.
    pub fn entries(&self) -> Vec<HubEntry> {
        [&self.test[..], &self.pool].concat()
    }

    /// Number and bytes of the shards that are not in the cache.
    pub fn lacking(&self, hub: &Hub) -> Result<(usize, u64)> {
        hub.lacking(&self.set.repo, &self.entries())
    }

    /// Whether the sample is drawn from a part of the pool.
    pub fn is_part(&self) -> bool {
        self.pool.len() < self.of
    }

    /// Where the shards of pool and test split lie, downloaded if they are not there.
    pub fn fetch(&self, hub: &Hub) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
        let mut paths: Vec<PathBuf> =
            hub.fetch_listed(&self.set.repo, &self.entries())?.into_iter().map(|fetched| fetched.path).collect();
        let pool = paths.split_off(self.test.len());
        Ok((pool, paths))
    }
}

/// How many images the shards hold, at least, that a sample of `images` is drawn from, if there are so many.
pub fn images_to_draw_from(images: usize) -> usize {
    images.max(SAMPLE).saturating_mul(IMAGES_PER_DRAWN)
}

/// Those of `all` that a sample of `images` is drawn from, in the order of their names.
fn drawn_from(repo: &HubRepo, all: &[HubEntry], images: usize, hub: &Hub) -> Result<Vec<HubEntry>> {
    let (mut chosen, mut rows) = (BTreeSet::new(), 0);
    for index in spread(all.len()) {
        // The last one is needed whatever it holds.
        if chosen.len() + 1 < all.len() {
            rows += rows_of(repo, &all[index], hub)?;
        }
        chosen.insert(index);
        if rows >= images_to_draw_from(images) as u64 {
            break;
        }
    }
    Ok(chosen.into_iter().map(|index| all[index].clone()).collect())
}

/// The numbers below `count` in an order of which every beginning is spread over all of them: those of a binary fraction whose
/// digits are read backwards (van der Corput).
fn spread(count: usize) -> impl Iterator<Item = usize> {
    let digits = count.next_power_of_two().trailing_zeros();
    let at = move |step: usize| match digits {
        0 => 0,
        _ => ((step.reverse_bits() >> (usize::BITS - digits)) * count) >> digits,
    };
    let mut seen = vec![false; count];
    let mut is_new = move |index: usize| seen.get_mut(index).is_some_and(|seen| !std::mem::replace(seen, true));
    (0..count.next_power_of_two()).map(at).filter(move |index| is_new(*index))
}

/// The number of rows of a shard.
fn rows_of(repo: &HubRepo, shard: &HubEntry, hub: &Hub) -> Result<u64> {
    let file = file_in(repo, &shard.path)?;
    let broken = |error: ParquetError| Error::Hub {
        name: file.to_string(),
        problem: format!("it is no complete Parquet file: {error}"),
    };
    let rows = match hub.in_cache(&file) {
        Some(path) => {
            let mut opened = open("cannot read", &path)?;
            check_footer(&mut opened).map_err(|problem| broken(ParquetError::General(problem)))?;
            let reader = checked(|| SerializedFileReader::new(opened)).map_err(broken)?;
            reader.metadata().file_metadata().num_rows()
        }
        None => {
            let tail = |bytes: u64| hub.tail(&file, shard.bytes.saturating_sub(bytes), shard.bytes);
            let mut end = tail(FOOTER_BYTES)?;
            let needed = footer_bytes(&end).map_err(broken)?;
            if needed > end.len() as u64 && needed <= shard.bytes.min(LARGEST_FOOTER) {
                end = tail(needed)?;
            }
            rows_in_footer(&end, shard.bytes).map_err(broken)?
        }
    };
    Ok(u64::try_from(rows).unwrap_or(0))
}

/// How many bytes the metadata take at the end of a Parquet file that ends with `end`.
fn footer_bytes(end: &[u8]) -> Result<u64, ParquetError> {
    match end.last_chunk::<END_BYTES>() {
        Some([a, b, c, d, b'P', b'A', b'R', b'1']) => {
            Ok(u64::from(u32::from_le_bytes([*a, *b, *c, *d])) + END_BYTES as u64)
        }
        _ => Err(ParquetError::General("it does not end as one".to_string())),
    }
}

/// What `read` gives; a panic in it is an error.
fn checked<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    caught(read).unwrap_or_else(|text| Err(ParquetError::General(unreadable(&text))))
}

/// The number of rows of a file of `len` bytes that ends with `end`.
fn rows_in_footer(end: &[u8], len: u64) -> Result<i64, ParquetError> {
    let needed = usize::try_from(footer_bytes(end)?).unwrap_or(usize::MAX);
    let start = end.len().checked_sub(needed).ok_or_else(|| ParquetError::EOF("it has no metadata".to_string()))?;
    let metadata = &end[start..end.len() - END_BYTES];
    check_metadata(metadata, len).map_err(ParquetError::General)?;
    let metadata = checked(|| ParquetMetaDataReader::decode_metadata(metadata))?;
    Ok(metadata.file_metadata().num_rows())
}

fn refused(set: &HubSet, problem: &str) -> Error {
    Error::Hub { name: set.to_string(), problem: problem.to_string() }
}

/// The folder of the configuration that `set` names, or of the only one; empty for the shards that lie in none, or in `data`.
///
/// Errors: no such configuration; several, and none named; no shards.
fn folder(set: &HubSet, entries: &[HubEntry]) -> Result<String> {
    let has_shards =
        |folder: &str| [&TEST[..], &POOL].iter().any(|names| !shards_among(entries, folder, names).is_empty());
    let folders: BTreeSet<&str> =
        entries.iter().filter_map(|entry| Some(entry.path.split_once('/')?.0)).filter(|name| *name != DATA).collect();
    let configs: Vec<&str> = folders.into_iter().filter(|folder| has_shards(folder)).collect();
    let named = |config: &str| HubSet { config: Some(config.to_string()), ..set.clone() };
    match (&set.config, &configs[..]) {
        (Some(config), _) if has_shards(config) => Ok(config.clone()),
        (Some(config), []) if has_shards("") => {
            Err(refused(set, &format!("there is no configuration {config}: the set has one alone, leave its name out")))
        }
        (Some(config), [_, ..]) => {
            Err(refused(set, &format!("there is no configuration {config}, but {}", configs.join(", "))))
        }
        (None, _) if has_shards("") => Ok(String::new()),
        (None, [config]) => Ok(config.to_string()),
        (None, [first, ..]) => Err(refused(
            set,
            &format!(
                "there are {} configurations: {}; name one, as in data = \"{}\"",
                configs.len(),
                configs.join(", "),
                named(first)
            ),
        )),
        (_, []) => Err(refused(set, &format!("it has no {}", found(&wanted(&TEST), entries, "")))),
    }
}

/// `wanted`, and what there is in its place in `folder`.
fn found(wanted: &str, entries: &[HubEntry], folder: &str) -> String {
    let is_parquet = |entry: &&HubEntry| is_parquet(&entry.path);
    let parquet: Vec<&str> = entries
        .iter()
        .filter(is_parquet)
        .map(|entry| entry.path.as_str())
        .filter(|path| Path::new(path).starts_with(folder))
        .collect();
    if !parquet.is_empty() {
        let more = if parquet.len() > NAMED { ", ..." } else { "" };
        let names = parquet[..parquet.len().min(NAMED)].join(", ");
        return format!("{wanted}; its Parquet files are {names}{more}");
    }
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in entries {
        let name = entry.path.rsplit('/').next().unwrap_or_default();
        *kinds.entry(name.split_once('.').map_or(name, |(_, kind)| kind)).or_default() += 1;
    }
    let mut kinds: Vec<(&str, usize)> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let kinds: Vec<String> = kinds.iter().take(NAMED).map(|(kind, count)| format!("{count} {kind}")).collect();
    format!(
        "{wanted}, nor any other Parquet file (but {}): the Hub's own conversion, if it made one, is at the revision \
         {CONVERTED}; else download the set and name its folder",
        kinds.join(", ")
    )
}

fn is_parquet(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "parquet")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(paths: &[&str]) -> Vec<HubEntry> {
        paths.iter().map(|path| HubEntry { path: path.to_string(), bytes: 1 }).collect()
    }

    fn folder_of(set: &str, paths: &[&str]) -> Result<String, String> {
        folder(&set.parse().unwrap(), &entries(paths)).map_err(|error| error.to_string())
    }

    #[test]
    fn every_beginning_of_the_order_is_spread_over_all_shards() {
        let first: Vec<usize> = spread(294).take(8).collect();
        assert_eq!(first, [0, 147, 73, 220, 36, 183, 110, 257]);
        for count in [1, 2, 3, 5, 8, 14, 294, 1024] {
            let mut all: Vec<usize> = spread(count).collect();
            all.sort_unstable();
            assert_eq!(all, (0..count).collect::<Vec<_>>());
        }
        assert_eq!(spread(0).next(), None);
    }

    #[test]
    fn samples_of_few_images_are_drawn_from_the_same_shards() {
        assert_eq!([1, 256, 1024].map(images_to_draw_from), [16_384; 3]);
        assert_eq!(images_to_draw_from(2048), 32_768);
    }

    #[test]
    fn the_rows_of_a_shard_stand_in_its_last_bytes() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/parquet/train-00000-of-00005.parquet");
        let shard = std::fs::read(path).unwrap();
        let needed = footer_bytes(&shard).unwrap() as usize;
        assert_eq!(rows_in_footer(&shard, shard.len() as u64).unwrap(), 3);
        assert_eq!(rows_in_footer(&shard[shard.len() - needed..], shard.len() as u64).unwrap(), 3);
        assert!(rows_in_footer(&shard[shard.len() - needed + 1..], shard.len() as u64).is_err());
        for end in [&b""[..], b"PAR1", b"\xff\xff\xff\xffPAR1", b"\0\0\0\0PAR1", b"0123456789"] {
            assert!(rows_in_footer(end, 1 << 20).is_err(), "{end:?}");
        }
    }

    #[test]
    fn the_only_configuration_needs_no_name() {
        let imagenet = ["README.md", "classes.py", "data/train-00000-of-00001.parquet", "data/validation-0.parquet"];
        let cifar = ["README.md", "plain_text/train-00000-of-00001.parquet", "plain_text/test-00000-of-00001.parquet"];
        let converted = ["default/train/0000.parquet", "default/test/0000.parquet"];
        let root = ["train/0000.parquet", "test/0000.parquet"];
        for (set, paths, expected) in [
            ("hub:a/b", &imagenet[..], ""),
            ("hub:a/b/data", &imagenet, "data"),
            ("hub:a/b", &cifar, "plain_text"),
            ("hub:a/b/plain_text", &cifar, "plain_text"),
            ("hub:a/b", &converted, "default"),
            ("hub:a/b", &root, ""),
        ] {
            assert_eq!(folder_of(set, paths), Ok(expected.to_string()), "{set} {paths:?}");
        }
    }

    #[test]
    fn what_is_not_there_is_said_with_what_is() {
        let two = ["large/train-0.parquet", "large/test-0.parquet", "small/train-0.parquet"];
        let one = ["data/train-0.parquet", "data/test-0.parquet"];
        let other = ["a.tar", "b.tar", "README.md"];
        let oddly = ["a/partial-train/0000.parquet"];
        for (set, paths, parts) in [
            ("hub:a/b", &two[..], ["there are 2 configurations: large, small", "data = \"hub:a/b@main/large\""]),
            ("hub:a/b/tiny", &two, ["hub:a/b@main/tiny: ", "no configuration tiny, but large, small"]),
            ("hub:a/b/tiny", &one, ["no configuration tiny", "leave its name out"]),
            ("hub:a/b", &other, ["no validation-*.parquet", "2 tar, 1 md): the Hub's own conversion"]),
            ("hub:a/b", &oddly, ["no validation-*.parquet", "its Parquet files are a/partial-train/0000.parquet"]),
        ] {
            let error = folder_of(set, paths).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }
}
