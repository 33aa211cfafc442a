//! `harness submit`, `harness run --worker` and `harness watch`, with stand-ins for Slurm's programs; `scripts/check_slurm.py` has the real ones.

#![cfg(unix)]

use crate::cli::{Bench, Ended, assert_contains, ended};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const GRID: &str = r#"
name = "tiny"
[base]
arch = "resnet20"
bits = "W4A4"
calib-images = 32
method = "rtn"
[axes]
seed = [0, 1, 2]
[slurm]
time = "10:00"
cpus = 2
"#;

/// A grid, and a folder of programs that stand before all others.
struct Cluster {
    bench: Bench,
}

impl Cluster {
    /// Job arrays of two tasks at most, the first of which is job 41.
    fn new(grid: &str) -> Self {
        let cluster = Self { bench: Bench::new(grid) };
        cluster.program("scontrol", "echo 'MaxArraySize            = 2'");
        cluster.program(
            "sbatch",
            "[ \"$1\" = --version ] && exit 0\necho \"$*\" >> submitted\nexpr 40 + $(wc -l < submitted)",
        );
        cluster.program("squeue", "cat queue 2>/dev/null; exit 0");
        cluster.program("sacct", "cat accounts 2>/dev/null; exit 0");
        cluster.program("scancel", "echo \"$*\" >> cancelled");
        cluster
    }

    fn path(&self, name: &str) -> PathBuf {
        self.bench.path().join(name)
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn harness(&self, args: &[&str]) -> Ended {
        let mut command = self.bench.command(args);
        command.env("PATH", format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap()));
        ended(command)
    }

    #[track_caller]
    fn ends(&self, args: &[&str], code: i32, said: &[&str]) -> Ended {
        let end = self.harness(args);
        assert_eq!(end.code, code, "{args:?}: {}{}", end.stdout, end.stderr);
        assert_contains(&format!("{}{}", end.stdout, end.stderr), said);
        end
    }

    /// Runs a task of the last submission as the cluster would.
    fn task(&self, script: &str) -> Ended {
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        let mut command = assert_cmd::Command::new("bash");
        command.current_dir(self.bench.path()).arg(script).env("PATH", path);
        command.envs([("SLURM_JOB_ID", "42"), ("SLURM_ARRAY_JOB_ID", "41"), ("SLURM_ARRAY_TASK_ID", "0")]);
        command.env("HARNESS_CACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"));
        ended(command)
    }
}

#[test]
fn what_is_pending_is_submitted_once_and_workers_make_it() {
    let cluster = Cluster::new(GRID);
    let grid = "grid.toml";
    // Whoever wants to see it first.
    let printed = cluster.ends(&["submit", grid, "--slurm", "--print"], 0, &["#SBATCH --time=10:00", "--array=0-1"]);
    assert_contains(&printed.stdout, &["run grid.toml --worker=results/tiny/slurm/submission-1.json", "--array=0-0"]);
    assert!(!cluster.path("results").exists());

    cluster.ends(&["watch", grid], 4, &["nothing of tiny was submitted", "harness submit grid.toml --slurm"]);
    let submit = ["submit", grid, "--slurm", "--filter", "seed(0 | 1)", "--", "--jobs", "1"];
    cluster.ends(&submit, 0, &["submitted 2 cells as job 41, 2 tasks; logs in results/tiny/slurm"]);
    assert_eq!(cluster.text("submitted"), "--parsable --array=0-1 results/tiny/slurm/submission-1.sh\n");
    let script = cluster.text("results/tiny/slurm/submission-1.sh");
    assert_contains(&script, &["#SBATCH --signal=B:USR1@120\n#SBATCH --time=10:00", " --jobs 1 &\n"]);
    assert!(!script.contains("filter"));

    // The same again would be done twice; others would not.
    cluster.write("queue", "41|0|RUNNING|1:05|node7|None\n41|1|PENDING|0:00||Resources\n");
    let again = ["submit", grid, "--slurm"];
    cluster.ends(&again, 2, &["2 of 3 pending cells were submitted before, as job 41, of which 2 tasks wait or run"]);
    cluster.ends(
        &["submit", grid, "--slurm", "--filter", "seed(2)", "--workers", "5"],
        0,
        &["1 cells as job 42, 1 tasks"],
    );
    let now = cluster.ends(
        &["watch", grid, "--once"],
        0,
        &["3 cells: 3 pending", "2 tasks: 1 pending (Resources), 1 running"],
    );
    assert_contains(&now.stdout, &["job 42, submitted 20", "1 tasks: 1 unknown", "  42_0  unknown"]);
    cluster.ends(&["watch", grid, "--cancel"], 0, &["cancelled 2 tasks of 41", "--resubmit"]);
    assert_eq!(cluster.text("cancelled"), "41\n");

    // One worker makes what was submitted with it, whatever else the grid has, and does not report for others.
    let end = cluster.task("results/tiny/slurm/submission-1.sh");
    assert_eq!(end.code, 0, "{}", end.stderr);
    assert_contains(&end.stdout, &["== ", "task 0 of job 41", "exit code 0"]);
    assert_contains(&end.stderr, &["[2/2]", "all cells are over: report written to results/tiny"]);
    assert!(cluster.text("results/tiny/runs.csv").lines().count() == 3);
    cluster.write("queue", "");
    cluster.write(
        "accounts",
        "41_0|COMPLETED|00:00:10|node7\n41_1|CANCELLED by 0|00:00:00|None assigned\n42_0|TIMEOUT|00:10:00|node8\n",
    );
    cluster.write("results/tiny/slurm/42_0.log", "== x task 0 of job 42 on node8, start 1\nat work\n");
    let now = cluster.ends(
        &["watch", grid],
        100,
        &["3 cells: 2 done, 1 pending", "42_0  timeout  00:10:00  node8", ".log: at work"],
    );
    assert!(!now.stdout.contains("job 41"), "{}", now.stdout);
    assert_contains(
        &now.stderr,
        &["no task is left, but 1 cells are, and 0 failed: `harness watch grid.toml --resubmit`"],
    );

    cluster.ends(&["watch", grid, "--resubmit"], 0, &["submitted 1 cells as job 43, 1 tasks"]);
    assert_eq!(cluster.task("results/tiny/slurm/submission-3.sh").code, 0);
    cluster.write("accounts", "43_0|COMPLETED|00:00:10|node7\n");
    cluster.ends(&["watch", grid], 0, &["3 cells: 3 done", "job 43, ", "1 tasks: 1 completed"]);
    cluster.ends(&["watch", grid, "--resubmit"], 4, &["all cells of grid.toml that were submitted are done"]);
    cluster.ends(&["watch", grid, "--cancel"], 4, &["no task of grid.toml waits or runs"]);
    cluster.ends(&["submit", grid, "--slurm"], 4, &["nothing to submit: 3 of 3 cells are done"]);
}

#[test]
fn what_cannot_be_submitted_is_refused_and_leaves_nothing() {
    let cluster = Cluster::new(GRID);
    let submit = ["submit", "grid.toml", "--slurm"];
    cluster.ends(&submit[..2], 2, &["--slurm"]);
    cluster.ends(
        &[&submit[..], &["--", "--no-such"]].concat(),
        2,
        &["`harness run` cannot be started so", "--no-such"],
    );
    cluster.ends(&[&submit[..], &["--", "--fresh"]].concat(), 2, &["--fresh", "cannot be used with", "--worker"]);
    cluster.ends(&["submit", "/dev/null", "--slurm"], 2, &["/dev/null is no regular file"]);
    cluster.write("queue.toml", &GRID.replace("time = \"10:00\"", "queue = \"gpu\""));
    cluster.ends(&["submit", "queue.toml", "--slurm"], 2, &["unknown field `queue`"]);
    cluster.write("short.toml", &GRID.replace("\"10:00\"", "\"2\""));
    cluster.ends(&["submit", "short.toml", "--slurm"], 2, &["stop-before-s = 120 leaves nothing of time = 2"]);
    cluster.write("typed.toml", &GRID.replace("cpus = 2", "gpu-type = \"a100\""));
    cluster.ends(&["submit", "typed.toml", "--slurm"], 2, &["gpu-type without gpus"]);

    // The second array is refused: the first is there.
    cluster.program(
        "sbatch",
        "[ \"$1\" = --version ] && exit 0\n[ -e first ] && { echo 'sbatch: error: QOSMaxSubmitJobPerUserLimit' >&2; exit 1; }\ntouch first; echo 7",
    );
    let end = cluster.ends(&submit, 96, &["submitted 3 cells as job 7, 2 tasks", "QOSMaxSubmitJobPerUserLimit"]);
    assert_contains(&end.stderr, &["sbatch failed (exit status: 1); it said: "]);
    // Nothing of what is refused as a whole stays.
    std::fs::remove_dir_all(cluster.path("results")).unwrap();
    cluster.ends(&submit, 96, &["QOSMaxSubmitJobPerUserLimit"]);
    let left: Vec<_> = std::fs::read_dir(cluster.path("results/tiny/slurm")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");

    cluster.program("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1");
    std::fs::remove_file(cluster.path("first")).unwrap();
    cluster.ends(&submit, 96, &["as job 7"]);
    cluster.ends(&submit, 96, &["squeue failed (exit status: 1)", "Unable to contact"]);
    std::fs::remove_dir_all(cluster.path("bin")).unwrap();
    let mut command = cluster.bench.command(&submit);
    command.env("PATH", "/nowhere");
    let end = ended(command);
    assert_eq!(end.code, 96, "{}", end.stderr);
    assert_contains(&end.stderr, &["there is no sbatch here"]);
}

#[test]
fn a_failed_cell_is_not_tried_again_by_each_task_and_a_worker_leaves_to_others_what_they_have() {
    let weights = "weights = [\"embedded\", \"file:gone.safetensors\"]";
    let cluster = Cluster::new(&GRID.replace("seed = [0, 1, 2]", weights));
    cluster.ends(&["submit", "grid.toml", "--slurm", "--workers", "1"], 0, &["2 cells as job 41, 1 tasks"]);
    // What began in the second of the submission counts as before it.
    std::thread::sleep(Duration::from_millis(1100));
    let script = "results/tiny/slurm/submission-1.sh";
    let first = cluster.task(script);
    assert_eq!(first.code, 100, "{}", first.stderr);
    assert_contains(&first.stderr, &["1 cells failed", "report written"]);
    let second = cluster.task(script);
    assert_eq!(second.code, 0, "{}", second.stderr);
    assert!(!second.stderr.contains("[1/"), "{}", second.stderr);
    cluster.write("accounts", "41_0|FAILED|00:00:10|node7\n");
    cluster.write("results/tiny/slurm/41_0.log", &format!("{}{}", first.stdout, first.stderr));
    let now = cluster.ends(
        &["watch", "grid.toml"],
        100,
        &["2 cells: 1 done, 1 failed", "  failed   resnet20-", "gone.safetensors"],
    );
    assert_contains(&now.stdout, &["  41_0  failed (exit code 100)  00:00:10  node7  results/tiny/slurm/41_0.log: "]);

    // Somebody else has the failed one now, alive on this machine.
    let store = metaaug::store::Store::new(&cluster.path("results"), "tiny");
    let failed = store.scan().unwrap().records.into_iter().find(|record| record.error.is_some()).unwrap();
    let claims = store.claims().unwrap();
    claims.ask(&failed.run_id).unwrap();
    let end = cluster.ends(&["run", "grid.toml", "--worker"], 0, &["1 cells are left to the processes that have them"]);
    assert!(!end.stderr.contains("waiting"), "{}", end.stderr);
    cluster.ends(&["watch", "grid.toml", "--once"], 100, &["1 done, 1 failed"]);
    // A grid that was edited has other cells.
    cluster.write("grid.toml", &GRID.replace("W4A4", "W2A2"));
    cluster.ends(&["run", "grid.toml", "--worker=results/tiny/slurm/submission-1.json"], 4, &["none of the 2 cells"]);
}

#[test]
fn hyperqueue_is_an_engine_like_slurm() {
    let cluster = Cluster::new(&GRID.replace("time = \"10:00\"", "requeues = 3"));
    let hq = "case \"$1 $2\" in\n'server info') echo '{}' ;;\n'job submit-file') cp \"$3\" submitted.toml; echo '{\"id\": 7}' ;;\n\
              'job info') cat info ;;\n'job cancel') echo \"$*\" >> cancelled ;;\n*) exit 2 ;;\nesac";
    cluster.program("hq", hq);
    let (grid, submit) = ("grid.toml", ["submit", "grid.toml", "--hq"]);
    let printed = cluster.ends(&[&submit[..], &["--print"]].concat(), 0, &["#!/bin/bash", "#   ids = \"0-2\""]);
    assert_contains(&printed.stdout, &["# hq job submit-file results/tiny/slurm/submission-1.toml"]);
    assert!(!cluster.path("results").exists());
    cluster.ends(&[&submit[..], &["--slurm"]].concat(), 2, &["cannot be used with"]);
    cluster.ends(&[&submit[..], &["--workers", "2"]].concat(), 0, &["submitted 3 cells as job hq-7, 2 tasks"]);
    let file = cluster.text("submitted.toml");
    assert_contains(&file, &["name = \"tiny\"", "ids = \"0-1\"", "crash_limit = 3", "resources = { cpus = 2 }"]);
    assert_contains(&file, &["command = [\"bash\", \"results/tiny/slurm/submission-1.sh\"]"]);

    let info = |first: &str, second: &str| {
        let tasks = format!(r#"{{"id": 0, "state": "{first}", "worker": 1}}, {{"id": 1, "state": "{second}"}}"#);
        cluster.write("info", &format!(r#"[{{"info": {{"id": 7}}, "tasks": [{tasks}]}}]"#));
    };
    info("running", "waiting");
    cluster.ends(&submit, 2, &["3 of 3 pending cells were submitted before, as job hq-7, of which 2 tasks"]);
    cluster.ends(&["watch", grid, "--once"], 0, &["job hq-7, submitted 20", "2 tasks: 1 pending, 1 running"]);
    cluster.ends(&["watch", grid, "--cancel"], 0, &["cancelled 2 tasks of hq-7"]);
    assert_eq!(cluster.text("cancelled"), "job cancel 7 --output-mode=json\n");

    let mut task = assert_cmd::Command::new("bash");
    task.current_dir(cluster.bench.path()).arg("results/tiny/slurm/submission-1.sh");
    task.envs([("HQ_JOB_ID", "7"), ("HQ_TASK_ID", "0"), ("HQ_INSTANCE_ID", "0"), ("HQ_CPUS", "0,1")]);
    task.env("HARNESS_CACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"));
    assert_eq!(ended(task).code, 0);
    let log = cluster.text("results/tiny/slurm/hq-7_0.log");
    assert_contains(&log, &["task 0 of job 7", "[3/3]", "all cells are over", "exit code 0"]);
    info("finished", "canceled");
    cluster.ends(&["watch", grid], 0, &["3 cells: 3 done", "2 tasks: 1 cancelled, 1 completed", "hq-7_1  cancelled"]);
    cluster.program("hq", "echo '{\"error\": \"no server\"}'; exit 1");
    cluster.ends(&["watch", grid, "--once"], 96, &["hq failed (exit status: 1); it said: {\"error\": \"no server\"}"]);
}
