//! TensorBoard event files: `DIR/<experiment>/<run>/events.out.tfevents.harness`.
//!
//! Scalars (accuracies, costs, losses per unit and iteration), images and their transforms, the resolved cell as text.
//! Messages: `tensorboard/compat/proto/{event,summary,tensor}.proto`.

use super::proto::Message;
use super::series::{end_s, phases, singles};
use super::{Exported, part, tfrecord};
use crate::disk::atomic;
use crate::error::Result;
use crate::report::picture;
use crate::store::PixelPairs;
use std::path::{Path, PathBuf};

/// The same for every export of a run, so that a later one replaces it. TensorBoard looks for `tfevents` in the name.
const FILE: &str = "events.out.tfevents.harness";

/// Fields of the messages.
mod field {
    pub mod event {
        pub const WALL_TIME: u32 = 1;
        pub const STEP: u32 = 2;
        pub const FILE_VERSION: u32 = 3;
        pub const SUMMARY: u32 = 5;
    }
    pub mod summary {
        pub const VALUE: u32 = 1;
    }
    pub mod value {
        pub const TAG: u32 = 1;
        pub const SIMPLE_VALUE: u32 = 2;
        pub const IMAGE: u32 = 4;
        pub const TENSOR: u32 = 8;
        pub const METADATA: u32 = 9;
    }
    pub mod image {
        pub const HEIGHT: u32 = 1;
        pub const WIDTH: u32 = 2;
        /// Number of channels.
        pub const COLORSPACE: u32 = 3;
        pub const ENCODED: u32 = 4;
    }
    pub mod tensor {
        pub const DTYPE: u32 = 1;
        pub const SHAPE: u32 = 2;
        pub const STRING_VAL: u32 = 8;
    }
    pub mod metadata {
        pub const PLUGIN_DATA: u32 = 1;
        pub const PLUGIN_NAME: u32 = 1;
    }
}
const DT_STRING: u64 = 7;

/// Writes the event file of `run` under `folder`, replacing one from before; returns its path.
pub fn write(folder: &Path, run: &Exported) -> Result<PathBuf> {
    let path = folder.join(part(&run.stored.experiment)).join(part(&run.stored.record.run_id)).join(FILE);
    atomic::write(&path, &events(run)?)?;
    Ok(path)
}

/// The content of an event file.
fn events(run: &Exported) -> Result<Vec<u8>> {
    let record = &run.stored.record;
    let start_s = record.provenance.started_unix_s as f64;
    let mut file = Vec::new();
    let version =
        Message::default().double(field::event::WALL_TIME, start_s).bytes(field::event::FILE_VERSION, b"brain.Event:2");
    tfrecord::append(&mut file, &version.into_bytes());
    let mut event = |time_s: f64, step: usize, values: &[Message]| {
        let summary =
            values.iter().fold(Message::default(), |summary, value| summary.message(field::summary::VALUE, value));
        let event = Message::default()
            .double(field::event::WALL_TIME, time_s)
            .varint(field::event::STEP, step as u64)
            .message(field::event::SUMMARY, &summary);
        tfrecord::append(&mut file, &event.into_bytes());
    };
    event(start_s, 0, &[text("cell", &record.cell.to_toml()?)]);
    for phase in phases(run) {
        for (index, step) in phase.steps.iter().enumerate() {
            let values: Vec<Message> = phase.values.iter().map(|(key, values)| scalar(key, values[index])).collect();
            event(phase.times_s[index], *step, &values);
        }
    }
    let end_s = end_s(record);
    let last: Vec<Message> = singles(record)
        .iter()
        .map(|single| scalar(&format!("{}/{}", single.group, single.name), single.value))
        .collect();
    event(end_s, 0, &last);
    if let Some(error) = &record.error {
        event(end_s, 0, &[text("error", error)]);
    }
    if let Some(log) = &run.log {
        event(end_s, 0, &[text("log", log)]);
    }
    if let Some(pixels) = &run.pictures {
        event(end_s, 0, &images(pixels)?);
    }
    Ok(file)
}

fn scalar(tag: &str, value: f64) -> Message {
    Message::default().bytes(field::value::TAG, tag.as_bytes()).float(field::value::SIMPLE_VALUE, value as f32)
}

/// Text as TensorBoard's text plugin shows it: Markdown, here a block of code.
fn text(tag: &str, text: &str) -> Message {
    let code: String = text.lines().map(|line| format!("    {line}\n")).collect();
    let plugin = Message::default().bytes(field::metadata::PLUGIN_NAME, b"text");
    let tensor = Message::default()
        .varint(field::tensor::DTYPE, DT_STRING)
        .message(field::tensor::SHAPE, &Message::default())
        .bytes(field::tensor::STRING_VAL, code.as_bytes());
    Message::default()
        .bytes(field::value::TAG, tag.as_bytes())
        .message(field::value::METADATA, &Message::default().message(field::metadata::PLUGIN_DATA, &plugin))
        .message(field::value::TENSOR, &tensor)
}

/// `x/0`, `T(x)/0`, `difference/0`, ...
fn images(pixels: &PixelPairs) -> Result<Vec<Message>> {
    let difference = pixels.difference();
    let named = [("x", &pixels.x), ("T(x)", &pixels.t_x), ("difference", &difference)];
    let all = named.into_iter().flat_map(|(name, images)| images.iter().enumerate().map(move |image| (name, image)));
    all.map(|(name, (index, image))| {
        let png = picture::png(pixels.width, pixels.height, pixels.channels, image)?;
        let image = Message::default()
            .varint(field::image::HEIGHT, pixels.height as u64)
            .varint(field::image::WIDTH, pixels.width as u64)
            .varint(field::image::COLORSPACE, pixels.channels as u64)
            .bytes(field::image::ENCODED, &png);
        let tag = format!("{name}/{index}");
        Ok(Message::default().bytes(field::value::TAG, tag.as_bytes()).message(field::value::IMAGE, &image))
    })
    .collect()
}
