//! `harness pixels`: what is made of image files, for `scripts/check_image_pixels.py` and for who wonders.

use super::Exit;
use crate::data::decode::{LARGEST_IMAGE, Pixels, decode};
use crate::disk::foreign::read;
use crate::disk::sha256;
use crate::error::Result;
use rayon::prelude::*;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// Image files.
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// Prints of each file `SHA-256 HEIGHT WIDTH` of its RGB levels, or `error` and what is wrong with it.
pub fn pixels(args: &Args) -> Result<Exit> {
    let described: Vec<(bool, String)> = args.files.par_iter().map(|file| described(file)).collect::<Result<_>>()?;
    described.iter().for_each(|(_, line)| say!("{line}"));
    Ok(if described.iter().all(|(is_read, _)| *is_read) { Exit::Done } else { Exit::SomeFailed })
}

fn described(file: &Path) -> Result<(bool, String)> {
    let bytes = read("cannot read", file, LARGEST_IMAGE)?;
    Ok(match decode(&bytes, 3) {
        Ok(Pixels { height, width, data, .. }) => (true, format!("{} {height} {width}", sha256(&[&data]))),
        Err(problem) => (false, format!("error {problem}")),
    })
}
