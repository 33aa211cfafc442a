//! An image file of any format that is read, to colours and to grey levels.
#![no_main]

use libfuzzer_sys::fuzz_target;
use metaaug::data::decode::decode;
use metaaug_fuzz::own_panics_abort;

fuzz_target!(init: own_panics_abort(), |bytes: &[u8]| {
    for channels in [1, 3] {
        if let Ok(pixels) = decode(bytes, channels) {
            assert_eq!(pixels.data.len(), pixels.height * pixels.width * channels);
        }
    }
});
