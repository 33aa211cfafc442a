//! Running cells.
