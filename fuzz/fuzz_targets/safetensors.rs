//! A safetensors file of weights.
#![no_main]

use libfuzzer_sys::fuzz_target;
use metaaug_fuzz::{load_weights, own_panics_abort};

fuzz_target!(init: own_panics_abort(), |bytes: &[u8]| load_weights(bytes, "x.safetensors", &[""]));
