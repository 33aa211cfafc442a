//! Slurm's programs, in their forms for other programs.

use crate::error::{Error, Result};
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

/// Of a job array where the cluster does not say: Slurm's default.
pub const MAX_ARRAY_SIZE: usize = 1001;

/// What `program` printed. Errors: it is not there; it failed, with what it said.
pub(super) fn output(program: &str, args: &[&str]) -> Result<String> {
    let ended = Command::new(program).args(args).output().map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::Cluster(format!(
            "there is no {program} here: use a machine on which the cluster's programs are installed"
        )),
        _ => Error::Cluster(format!("{program} cannot be started: {error}")),
    })?;
    if ended.status.success() {
        return Ok(String::from_utf8_lossy(&ended.stdout).into_owned());
    }
    // Some say what is wrong on standard output.
    let said = if ended.stderr.trim_ascii().is_empty() { &ended.stdout } else { &ended.stderr };
    let said = String::from_utf8_lossy(said);
    let said: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let said = if said.is_empty() { "nothing".to_string() } else { said.join(" / ") };
    Err(Error::Cluster(format!("{program} failed ({}); it said: {said}", ended.status)))
}

/// Errors: Slurm's programs are not on this machine.
pub(super) fn check_here() -> Result<()> {
    output("sbatch", &["--version"]).map(drop)
}

/// How many tasks a job array may have. Errors: the cluster does not answer, or has no job arrays.
pub(super) fn max_array_size() -> Result<usize> {
    match array_size_in(&output("scontrol", &["show", "config"])?) {
        0 => Err(Error::Cluster("this cluster has no job arrays (MaxArraySize = 0)".to_string())),
        size => Ok(size),
    }
}

fn array_size_in(config: &str) -> usize {
    let values = config.lines().filter_map(|line| line.split_once('='));
    let mut sizes =
        values.filter(|(key, _)| key.trim() == "MaxArraySize").filter_map(|(_, size)| size.trim().parse().ok());
    sizes.next().unwrap_or(MAX_ARRAY_SIZE)
}

/// The command that submits a job array of `tasks` tasks, and its arguments.
pub(super) fn sbatch_arguments(script: &str, tasks: usize) -> [String; 3] {
    ["--parsable".to_string(), format!("--array=0-{}", tasks.saturating_sub(1)), script.to_string()]
}

/// Submits the script as a job array; the id of the job. Errors: what sbatch said.
pub(super) fn submit(script: &Path, tasks: usize) -> Result<String> {
    let arguments = sbatch_arguments(&script.display().to_string(), tasks);
    job_in(&output("sbatch", &arguments.each_ref().map(String::as_str))?)
}

/// `ID` or `ID;CLUSTER`, on the last line.
fn job_in(printed: &str) -> Result<String> {
    let line = printed.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let job = line.split(';').next().unwrap_or_default();
    match !job.is_empty() && job.chars().all(|c| c.is_ascii_digit()) {
        true => Ok(job.to_string()),
        false => Err(Error::Cluster(format!("sbatch named no job: it printed {line:?}"))),
    }
}

/// Cancels all tasks of the jobs. Errors: what scancel said.
pub(super) fn cancel(jobs: &[&str]) -> Result<()> {
    output("scancel", jobs).map(drop)
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    #[test]
    fn what_the_programs_print_is_read() {
        assert_eq!(job_in("1234\n").unwrap(), "1234");
        assert_eq!(job_in("a note of the site\n77;alpha\n").unwrap(), "77");
        for printed in ["", "Submitted batch job 5\n", ";x"] {
            assert!(job_in(printed).unwrap_err().to_string().contains("sbatch named no job"), "{printed}");
        }
        assert_eq!(array_size_in("MailProg = /bin/mail\nMaxArraySize            = 31\nMaxJobCount = 10000\n"), 31);
        assert_eq!([array_size_in(""), array_size_in("MaxArraySize = 0")], [1001, 0]);
    }

    #[test]
    fn a_program_that_is_missing_or_fails_is_an_error_that_says_so() {
        let error = |program: &str, args: &[&str]| output(program, args).unwrap_err().to_string();
        assert!(error("no-such-program-of-slurm", &[]).contains("there is no no-such-program-of-slurm here"));
        let said = error("sh", &["-c", "echo first >&2; echo; echo second >&2; exit 3"]);
        assert_eq!(said, "sh failed (exit status: 3); it said: first / second");
        assert!(error("false", &[]).ends_with("it said: nothing"));
    }
}
