//! Trackio's projects: one SQLite database each, `NAME.db` (`trackio/sqlite_storage.py`).
//!
//! A new file is made in memory and written whole. One that is there is added to in one transaction, since Trackio may have logged other
//! runs to it: those stay, and the runs exported before are replaced where they changed. Pictures and artefacts, which Trackio keeps in
//! folders beside its databases, are no part of it.

mod rows;

use super::Exported;
use crate::disk::atomic;
use crate::error::{Error, Result};
use rows::{DIGEST, Rows};
use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags, OptionalExtension, params};
use std::path::{Path, PathBuf};
use std::time::Duration;

const SCHEMA: &str = include_str!("schema.sql");
/// Its `user_version`.
const SCHEMA_VERSION: i64 = 2;
/// How long another program may keep the database to itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// A project that runs are written to; nothing is kept without [`finish`](Self::finish).
pub struct Project {
    path: PathBuf,
    database: Connection,
    is_new: bool,
}

impl Project {
    /// The project in the file `path`, which need not be there.
    ///
    /// Errors: a file of something else, or of a Trackio that keeps runs in another way.
    pub fn open(path: &Path) -> Result<Self> {
        let is_new = !path.is_file();
        let database = match is_new {
            true => Connection::open_in_memory(),
            false => {
                Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            }
        };
        let project = Self { database: database.map_err(of_sqlite(path))?, path: path.to_path_buf(), is_new };
        project.database.busy_timeout(PATIENCE).map_err(of_sqlite(path))?;
        match is_new {
            true => project.database.execute_batch(SCHEMA).map_err(of_sqlite(path))?,
            false => project.check()?,
        }
        project.database.execute_batch("BEGIN IMMEDIATE").map_err(of_sqlite(path))?;
        Ok(project)
    }

    /// Has `run` be there once, as it is; whether it was not already.
    pub fn write(&mut self, run: &Exported) -> Result<bool> {
        let rows = Rows::of(run);
        if self.digest(&rows.id)?.is_some_and(|known| known == rows.digest) {
            return Ok(false);
        }
        self.replace(&rows).map_err(of_sqlite(&self.path))?;
        Ok(true)
    }

    /// Keeps what was written, all of it or nothing.
    pub fn finish(mut self) -> Result<()> {
        self.database.execute_batch("COMMIT").map_err(of_sqlite(&self.path))?;
        if !self.is_new {
            return Ok(());
        }
        let file = self.database.serialize(MAIN_DB);
        let file = file.map_err(of_sqlite(&self.path))?;
        atomic::write(&self.path, &file)
    }

    /// Whether the database is one that this harness can write to.
    fn check(&self) -> Result<()> {
        let version = self.database.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
        let version = version.map_err(of_sqlite(&self.path))?;
        let tables = ["SELECT run_id, log_id FROM metrics", "SELECT run_id FROM configs", "SELECT run_id FROM alerts"];
        let is_trackios = tables.iter().all(|table| self.database.prepare(table).is_ok());
        let problem = match is_trackios {
            true if version == SCHEMA_VERSION => return Ok(()),
            true => {
                format!("keeps runs in version {version} of Trackio's schema, and this harness knows {SCHEMA_VERSION}")
            }
            false => "is no project of Trackio 0.24 or newer".to_string(),
        };
        Err(Error::content(&self.path, format!("{problem}; name another file")))
    }

    /// What the run that is there was exported from, if it is there.
    fn digest(&self, id: &str) -> Result<Option<String>> {
        // Trackio's own are blobs.
        let question = "SELECT CAST(config AS TEXT) FROM configs WHERE run_id = ?";
        let config = self.database.query_row(question, [id], |row| row.get::<_, String>(0)).optional();
        let config = config.map_err(of_sqlite(&self.path))?;
        let config = config.and_then(|config| serde_json::from_str::<serde_json::Value>(&config).ok());
        Ok(config.and_then(|config| Some(config.get(DIGEST)?.as_str()?.to_string())))
    }

    fn replace(&self, run: &Rows) -> rusqlite::Result<()> {
        let Rows { id, name, .. } = run;
        for table in ["metrics", "configs", "alerts"] {
            self.database.execute(&format!("DELETE FROM {table} WHERE run_id = ?"), [id])?;
        }
        self.database.execute(
            "INSERT INTO configs (run_id, run_name, config, created_at) VALUES (?, ?, ?, ?)",
            params![id, name, run.config, run.created_at],
        )?;
        let mut log = self.database.prepare(
            "INSERT INTO metrics (run_id, timestamp, run_name, step, metrics, log_id) VALUES (?, ?, ?, ?, ?, ?)",
        )?;
        for (index, row) in run.logged.iter().enumerate() {
            log.execute(params![id, row.timestamp, name, row.step, row.metrics, run.row_id(index)])?;
        }
        if let Some((timestamp, error)) = &run.alert {
            self.database.execute(
                "INSERT INTO alerts (run_id, timestamp, run_name, title, text, level, alert_id) \
                 VALUES (?, ?, ?, 'the run failed', ?, 'error', ?)",
                params![id, timestamp, name, error, run.row_id(run.logged.len())],
            )?;
        }
        Ok(())
    }
}

/// The name of the project that Trackio finds in a file of this name, if it finds one.
pub fn project_name(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?.strip_suffix(".db")?;
    let is_kept = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
    (!name.is_empty() && name.chars().all(is_kept)).then_some(name)
}

fn of_sqlite(path: &Path) -> impl FnOnce(rusqlite::Error) -> Error {
    let path = path.to_path_buf();
    move |error| {
        let problem = match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                format!("is no whole database of SQLite ({error}); name another file")
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                "is being written by another program; export again when that is done".to_string()
            }
            _ => format!("cannot be written as a database: {error}"),
        };
        Error::content(path, problem)
    }
}
