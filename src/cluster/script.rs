//! The batch script of a job array.

use crate::error::{Error, Result};
use crate::experiment::SlurmOptions;
use std::path::Path;

/// Begins what the script itself says in a task's log.
pub const SAYS: &str = "== ";
/// How the harness ends when it was told to stop by SIGUSR1.
const STOPPED: u8 = 138;

/// Half of a task's memory for activations, as half of the machine's is without Slurm.
const MEMORY: &str = r#"[ "${SLURM_MEM_PER_NODE:-0}" -le 0 ] || export HARNESS_MEMORY="${HARNESS_MEMORY:-$((SLURM_MEM_PER_NODE / 2))MiB}"
"#;

/// What a batch script is made of.
pub struct Script<'a> {
    /// Names its job.
    pub experiment: &'a str,
    /// The folder of the tasks' logs.
    pub logs: &'a Path,
    pub options: &'a SlurmOptions,
    /// The worker and its arguments.
    pub command: &'a [String],
}

impl Script<'_> {
    /// The script. Errors: a path that no script can name.
    ///
    /// Slurm sends SIGUSR1 to the shell alone, which passes it on; SIGTERM it sends to all processes of a task, and a second one would stop the
    /// worker at once. A task that stopped since its time is nearly over is requeued by its own id: the others of its array go on.
    pub fn text(&self) -> Result<String> {
        let SlurmOptions { stop_before_s, requeues, setup, gpus, .. } = self.options;
        let mut head = vec![
            format!("--job-name={}", self.experiment),
            format!("--output=\"{}/%A_%a.log\"", in_quotes(text_of(self.logs)?)?),
            "--open-mode=append".to_string(),
            "--requeue".to_string(),
            format!("--signal=B:USR1@{stop_before_s}"),
        ];
        head.extend(self.asked_for());
        let head: String = head.iter().map(|option| format!("#SBATCH {option}\n")).collect();
        let setup: String = setup.iter().map(|line| format!("{}\n", line.0)).collect();
        let command: Vec<String> = self.command.iter().map(|argument| quoted(argument)).collect();
        let (experiment, command) = (self.experiment, command.join(" "));
        let memory = if *gpus == 0 { MEMORY } else { "" };
        Ok(format!(
            r#"#!/bin/bash
# One of several workers for cells of {experiment} (`harness submit`): it takes them until none is left, or its time is nearly over.
{head}
say() {{ echo "{SAYS}$(date +%FT%T) $*"; }}
worker= signalled=
# Slurm sends USR1 to this shell alone, and TERM to the worker as well.
trap 'signalled=1; [ -z "$worker" ] || kill -USR1 "$worker"' USR1
trap 'signalled=1' TERM
say "task $SLURM_ARRAY_TASK_ID of job $SLURM_ARRAY_JOB_ID on $(hostname), start $((${{SLURM_RESTART_COUNT:-0}} + 1))"
{setup}# What the task has, not what the node has.
[ -z "$SLURM_CPUS_PER_TASK" ] || export RAYON_NUM_THREADS="${{RAYON_NUM_THREADS:-$SLURM_CPUS_PER_TASK}}"
{memory}{command} &
worker=$!
signalled=1
# A signal ends `wait` before the worker ends.
while [ -n "$signalled" ]; do
    signalled=
    wait "$worker"
    code=$?
done
say "exit code $code"
if [ "$code" -eq {STOPPED} ]; then
    if [ "${{SLURM_RESTART_COUNT:-0}}" -lt {requeues} ]; then
        say "its time is nearly over: requeued, it goes on from the last unit that was trained"
        scontrol requeue "$SLURM_JOB_ID"
    else
        say "its time is nearly over, and it was requeued {requeues} times: harness watch --resubmit begins anew"
    fi
fi
exit "$code"
"#
        ))
    }

    /// What a task asks for.
    fn asked_for(&self) -> impl Iterator<Item = String> {
        let SlurmOptions { partition, account, gpus, gpu_type, cpus, memory, time, options, .. } = self.options;
        let gpu_type = gpu_type.as_ref().map(|name| format!("{}:", name.0)).unwrap_or_default();
        let asked = [
            partition.as_ref().map(|name| format!("--partition={}", name.0)),
            account.as_ref().map(|name| format!("--account={}", name.0)),
            time.as_ref().map(|time| format!("--time={}", time.text)),
            cpus.map(|cpus| format!("--cpus-per-task={cpus}")),
            memory.as_ref().map(|memory| format!("--mem={}", memory.0)),
            (*gpus > 0).then(|| format!("--gres=gpu:{gpu_type}{gpus}")),
        ];
        asked.into_iter().flatten().chain(options.iter().map(|option| in_head(&option.0)))
    }
}

/// A path as text. Errors: it is none.
pub fn text_of(path: &Path) -> Result<&str> {
    let problem =
        || Error::Usage(format!("{}: a path that is not UTF-8 cannot stand in a batch script", path.display()));
    path.to_str().ok_or_else(problem)
}

/// An option of sbatch, whose value may have blanks.
fn in_head(option: &str) -> String {
    match option.split_once('=') {
        Some((name, value)) if value.contains(char::is_whitespace) => format!("{name}=\"{value}\""),
        _ => option.to_string(),
    }
}

/// For between double quotes in an option of sbatch, in which `%` begins a name of Slurm's.
fn in_quotes(path: &str) -> Result<String> {
    match path.chars().any(|c| c.is_control() || "\"\\".contains(c)) {
        true => Err(Error::Usage(format!("{path:?}: sbatch takes no such path; give another folder with --results"))),
        false => Ok(path.replace('%', "%%")),
    }
}

/// A word of the shell that stands for `text`.
pub fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_string(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::process::Command;

    fn options(toml: &str) -> SlurmOptions {
        toml::from_str(toml).unwrap()
    }

    fn script(logs: &Path, options: &SlurmOptions, command: &[&str]) -> Result<String> {
        let command: Vec<String> = command.iter().map(ToString::to_string).collect();
        Script { experiment: "x", logs, options, command: &command }.text()
    }

    #[test]
    fn what_the_table_asks_for_is_asked_of_sbatch() {
        let table = "partition = \"gpu\"\naccount = \"lab\"\ngpus = 2\ngpu-type = \"a100\"\ncpus = 8\nmemory = \"32G\"\ntime = \"4:00:00\"\n\
                     stop-before-s = 90\nsetup = [\"module load cuda\"]\noptions = [\"--qos=long\", \"--comment=of us\"]\n";
        let text = script(Path::new("re sults/100%/slurm"), &options(table), &["harness", "run", "it's.toml"]).unwrap();
        let head: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("#SBATCH ")).collect();
        let expected = [
            "--job-name=x",
            "--output=\"re sults/100%%/slurm/%A_%a.log\"",
            "--open-mode=append",
            "--requeue",
            "--signal=B:USR1@90",
            "--partition=gpu",
            "--account=lab",
            "--time=4:00:00",
            "--cpus-per-task=8",
            "--mem=32G",
            "--gres=gpu:a100:2",
            "--qos=long",
            "--comment=\"of us\"",
        ];
        assert_eq!(head, expected);
        assert!(!text.contains("HARNESS_MEMORY"), "activations lie on the GPU");
        assert!(text.contains("\nmodule load cuda\n") && text.contains("\nharness run 'it'\\''s.toml' &\n"), "{text}");
        let error = script(Path::new("a\"b"), &options(""), &["harness"]).unwrap_err().to_string();
        assert!(error.contains("--results"), "{error}");
    }

    /// The script's output and exit code with `worker` as its worker, and `then` sent to the shell once that runs.
    fn ran(worker: &str, signal: Option<&str>, restarts: u32) -> (String, i32) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("script");
        std::fs::write(&path, script(folder.path(), &options("requeues = 2"), &["bash", "-c", worker]).unwrap())
            .unwrap();
        let said = folder.path().join("said");
        let out = std::fs::File::create(&said).unwrap();
        let mut command = Command::new("bash");
        command.arg(&path).stdout(out.try_clone().unwrap()).stderr(out);
        command.env_remove("RAYON_NUM_THREADS").env_remove("HARNESS_MEMORY");
        command.envs([("SLURM_CPUS_PER_TASK", "3"), ("SLURM_MEM_PER_NODE", "1000")]);
        command.envs([("SLURM_JOB_ID", "12"), ("SLURM_ARRAY_JOB_ID", "10"), ("SLURM_ARRAY_TASK_ID", "1")]);
        let scontrol = folder.path().join("scontrol");
        std::fs::write(&scontrol, "#!/bin/sh\necho scontrol \"$@\"\n").unwrap();
        std::fs::set_permissions(&scontrol, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).env("SLURM_RESTART_COUNT", restarts.to_string());
        let mut shell = command.spawn().unwrap();
        let text = || std::fs::read_to_string(&said).unwrap();
        if let Some(signal) = signal {
            while !text().contains("at work") {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            assert!(Command::new("kill").args([signal, &shell.id().to_string()]).status().unwrap().success());
        }
        let code = shell.wait().unwrap().code().unwrap();
        (text(), code)
    }

    #[test]
    fn a_task_uses_the_processors_and_the_memory_that_it_has() {
        let (said, _) = ran("echo $RAYON_NUM_THREADS threads, $HARNESS_MEMORY", None, 0);
        assert!(said.contains("\n3 threads, 500MiB\n"), "{said}");
    }

    #[test]
    fn a_task_ends_as_its_worker_does() {
        let (said, code) = ran("exit 100", None, 0);
        assert_eq!(code, 100);
        assert!(said.contains("task 1 of job 10 on ") && said.contains("exit code 100") && !said.contains("scontrol"));
    }

    #[test]
    fn a_task_whose_time_is_nearly_over_is_requeued_by_its_own_id_when_its_worker_has_stopped() {
        let worker = "trap 'sleep 0.2; echo stopped; exit 138' USR1; echo at work; while :; do sleep 0.05; done";
        let (said, code) = ran(worker, Some("-USR1"), 1);
        assert_eq!(code, 138, "{said}");
        let (stopped, requeued) = (said.find("stopped").unwrap(), said.find("scontrol requeue 12").unwrap());
        assert!(stopped < requeued, "{said}");
        // Not for ever.
        let (said, code) = ran(worker, Some("-USR1"), 2);
        assert_eq!(code, 138);
        assert!(said.contains("was requeued 2 times") && !said.contains("scontrol requeue"), "{said}");
    }

    #[test]
    fn a_task_that_is_cancelled_waits_for_its_worker_and_passes_nothing_on() {
        let worker = "trap 'echo heard' USR1 TERM; echo at work; sleep 0.5; exit 143";
        let (said, code) = ran(worker, Some("-TERM"), 0);
        assert_eq!(code, 143);
        assert!(!said.contains("heard") && !said.contains("scontrol"), "{said}");
    }
}
