//! What `harness submit` asks of a Slurm cluster: the `[slurm]` table of a grid, no part of any run's identity.
//!
//! ```toml
//! [slurm]                           # all of it optional: what is left out is the cluster's default
//! partition = "gpu"
//! account = "lab"
//! gpus = 1                          # per task, on one node
//! gpu-type = "a100"                 # optional, as the cluster calls it
//! cpus = 8
//! memory = "32G"
//! time = "4:00:00"                  # of a task, in one of sbatch's forms; cells may take longer: tasks are requeued
//! workers = 8                       # tasks at most; by default one per cell
//! stop-before-s = 120               # how long before its time is over a task stops and is requeued
//! requeues = 20                     # how often at most
//! setup = ["module load cuda/12.4"] # lines of the shell, before the harness starts
//! options = ["--qos=long"]          # further options of sbatch
//! ```

use crate::diagnostic::{GridError, SourceText};
use serde::Deserialize;
use std::num::{NonZeroU32, NonZeroUsize};
use toml::Spanned;

/// Options of `sbatch` that the harness sets itself.
const OWN: [&str; 9] =
    ["array", "output", "error", "open-mode", "signal", "requeue", "no-requeue", "job-name", "chdir"];

/// The table.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct SlurmOptions {
    pub partition: Option<Word>,
    pub account: Option<Word>,
    /// Per task.
    pub gpus: u32,
    pub gpu_type: Option<Word>,
    pub cpus: Option<NonZeroU32>,
    pub memory: Option<Memory>,
    pub time: Option<TimeLimit>,
    /// Tasks at most.
    pub workers: Option<NonZeroUsize>,
    /// How long before its time is over a task is told to stop.
    pub stop_before_s: u16,
    /// How often a task whose time is over is requeued.
    pub requeues: u32,
    /// Lines of the shell.
    pub setup: Vec<Line>,
    pub options: Vec<SbatchOption>,
}

impl Default for SlurmOptions {
    fn default() -> Self {
        Self {
            partition: None,
            account: None,
            gpus: 0,
            gpu_type: None,
            cpus: None,
            memory: None,
            time: None,
            workers: None,
            stop_before_s: 120,
            requeues: 20,
            setup: Vec::new(),
            options: Vec::new(),
        }
    }
}

impl SlurmOptions {
    /// The table of a grid, or what it is without one. Errors: values that do not go together.
    pub(super) fn checked(source: SourceText, table: Option<&Spanned<Self>>) -> Result<Self, Box<GridError>> {
        let Some(table) = table else { return Ok(Self::default()) };
        let options = table.get_ref();
        let refuse = |message: String, help: &str| Err(source.error(message, Some(table.span()), "here").help(help));
        if options.gpu_type.is_some() && options.gpus == 0 {
            return refuse("gpu-type without gpus".into(), "say how many of them a task gets, such as gpus = 1");
        }
        match &options.time {
            Some(time) if time.seconds <= u64::from(options.stop_before_s) => {
                let message =
                    format!("stop-before-s = {} leaves nothing of time = {}", options.stop_before_s, time.text);
                refuse(message, "a task stops so many seconds before its time is over: give it more time")
            }
            _ => Ok(options.clone()),
        }
    }
}

/// A value that stands in one line of a script, without blanks or quotes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Word(pub String);

impl TryFrom<String> for Word {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.,:+@/".contains(c);
        match !text.is_empty() && text.chars().all(is_plain) {
            true => Ok(Self(text)),
            false => Err(format!("{text:?} is no name of Slurm: letters, digits and -_.,:+@/")),
        }
    }
}

/// As `sbatch --mem` takes it: `32G`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Memory(pub String);

impl TryFrom<String> for Memory {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number = text.strip_suffix(['K', 'M', 'G', 'T']).unwrap_or(&text);
        match number.parse::<u64>() {
            Ok(_) if !number.starts_with('+') => Ok(Self(text)),
            _ => Err(format!("{text:?} is no amount of memory: a number and K, M, G or T, such as \"32G\"")),
        }
    }
}

/// As `sbatch --time` takes it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct TimeLimit {
    pub text: String,
    pub seconds: u64,
}

impl TryFrom<String> for TimeLimit {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = "minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes or \
                     days-hours:minutes:seconds, such as \"4:00:00\"";
        match seconds(&text) {
            Some(seconds) if seconds > 0 => Ok(Self { text, seconds }),
            _ => Err(format!("{text:?} is no time limit of Slurm: {wrong}")),
        }
    }
}

/// Of a time limit in one of sbatch's forms.
fn seconds(text: &str) -> Option<u64> {
    let number = |part: &str| part.parse::<u64>().ok().filter(|n| *n < 1 << 32 && !part.starts_with('+'));
    let (days, rest) = match text.split_once('-') {
        Some((days, rest)) => (Some(number(days)?), rest),
        None => (None, text),
    };
    let parts = rest.split(':').map(number).collect::<Option<Vec<_>>>()?;
    let (hours, minutes, seconds) = match (days, &parts[..]) {
        (None, [minutes]) => (0, *minutes, 0),
        (None, [minutes, seconds]) => (0, *minutes, *seconds),
        (Some(_), [hours]) => (*hours, 0, 0),
        (Some(_), [hours, minutes]) => (*hours, *minutes, 0),
        (_, [hours, minutes, seconds]) => (*hours, *minutes, *seconds),
        _ => return None,
    };
    Some(((days.unwrap_or(0) * 24 + hours) * 60 + minutes) * 60 + seconds)
}

/// A line of the shell.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Line(pub String);

impl TryFrom<String> for Line {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.chars().any(|c| c.is_control() && c != '\t') {
            false => Ok(Self(text)),
            true => Err(format!("{text:?} is not one line: give several strings")),
        }
    }
}

/// One more option of `sbatch`, `--NAME=VALUE`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct SbatchOption(pub String);

impl TryFrom<String> for SbatchOption {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let Line(text) = Line::try_from(text)?;
        if text.contains(['"', '\'', '\\']) {
            return Err(format!(
                "{text:?} has a quote or a backslash, which sbatch takes as its own: a value may have blanks without them"
            ));
        }
        let Some(name) = text.strip_prefix("--").map(|rest| rest.split(['=', ' ']).next().unwrap_or_default()) else {
            return Err(format!("{text:?} is no option of sbatch of the form \"--name=value\""));
        };
        match OWN.contains(&name) {
            false => Ok(Self(text)),
            true => Err(format!("--{name} is set by the harness")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str) -> Result<SlurmOptions, String> {
        toml::from_str(toml).map_err(|error: toml::de::Error| error.message().to_string())
    }

    #[test]
    fn time_limits_are_read_as_sbatch_reads_them() {
        let forms = [
            ("90", 5_400),
            ("1:30", 90),
            ("4:00:00", 14_400),
            ("2-0", 172_800),
            ("1-12:30", 131_400),
            ("0-0:0:30", 30),
        ];
        for (text, expected) in forms {
            assert_eq!(TimeLimit::try_from(text.to_string()).map(|time| time.seconds), Ok(expected), "{text}");
        }
        for text in ["", "4h", "1:2:3:4", "-1", "1-", "0", "+5", "1-2-3", "99999999999999999999"] {
            assert!(TimeLimit::try_from(text.to_string()).unwrap_err().contains("no time limit of Slurm"), "{text}");
        }
    }

    #[test]
    fn values_that_would_break_a_script_are_refused() {
        for (toml, said) in [
            ("partition = \"a b\"", "no name of Slurm"),
            ("account = \"\"", "no name of Slurm"),
            ("memory = \"much\"", "no amount of memory"),
            ("memory = \"32GB\"", "no amount of memory"),
            ("setup = [\"a\\nb\"]", "not one line"),
            ("options = [\"-p x\"]", "no option of sbatch"),
            ("options = ['--comment=\"x\"']", "has a quote"),
            ("options = [\"--array=0-3\"]", "--array is set by the harness"),
            ("options = [\"--signal INT\"]", "--signal is set by the harness"),
            ("queue = \"x\"", "unknown field `queue`"),
            ("cpus = 0", "nonzero"),
        ] {
            let error = read(toml).unwrap_err();
            assert!(error.contains(said), "{toml}: {error}");
        }
        assert_eq!(read("").unwrap(), SlurmOptions::default());
    }
}
