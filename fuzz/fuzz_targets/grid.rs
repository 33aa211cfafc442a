//! A grid file: read, checked and expanded, with its `[smoke]` section and without.
#![no_main]

use libfuzzer_sys::fuzz_target;
use metaaug::experiment::{Experiment, Filter, Options};
use metaaug_fuzz::{Folder, own_panics_abort, write};

fuzz_target!(init: own_panics_abort(), |bytes: &[u8]| {
    Folder::with(
        |_| {},
        |folder| {
            let path = folder.join("grid.toml");
            write(path.clone(), bytes);
            drop(Experiment::name_of(&path));
            for smoke in [false, true] {
                let Ok(grid) = Experiment::read(&path, &Options { smoke, ..Options::default() }) else { continue };
                let filter = Filter::parse("method(=qdrop) & seed(>=1)");
                let cells = grid.cells.iter().take(20);
                cells.for_each(|cell| drop((cell.slug(), cell.to_toml(), cell.fields(), cell.departures())));
                drop(filter.and_then(|filter| filter.select(grid.cells)));
            }
        },
    );
});
