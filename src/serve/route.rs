//! From a request to its answer, without sockets.

use super::json::json;
use super::losses_json::losses;
use super::parameters::Parameters;
use super::refusal::Refusal;
use super::runs_json::{chosen, filtered};
use super::site::Site;
use crate::error::Result;
use crate::report::templates::{COMPARE, COMPARE_SCRIPT, COMPARE_STYLE, REFRESH, STYLE, TABLES};
use percent_encoding::percent_decode_str;

/// What of a request matters.
pub struct Asked<'a> {
    /// Whether its method only reads: GET or HEAD.
    pub reads: bool,
    /// Whether it comes, or claims to come, with a body.
    pub has_body: bool,
    pub host: Option<&'a str>,
    /// Path and query.
    pub url: String,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    /// Content security policy.
    pub policy: &'static str,
    pub body: Vec<u8>,
}

/// Pages load their style and scripts from here, and nothing from elsewhere.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; \
                           base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// A stored report has its scripts within it; in a sandbox they are of no origin.
const REPORT_POLICY: &str = "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; \
                             style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; \
                             frame-ancestors 'none'";
const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

impl Answer {
    fn new(status: u16, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, content_type, policy: PAGE_POLICY, body: body.into() }
    }

    /// Where making a page panicked.
    pub fn of_a_bug() -> Self {
        Self::new(500, TEXT, "this page cannot be made: a bug of the harness\n")
    }

    fn html(body: impl Into<Vec<u8>>) -> Self {
        Self::new(200, HTML, body)
    }
}

/// The answer to a request.
pub fn answer(site: &Site, asked: &Asked) -> Answer {
    if !asked.host.is_some_and(is_loopback) {
        return Answer::new(421, TEXT, "this server answers for localhost and 127.0.0.1 alone\n");
    }
    if !asked.reads {
        return Answer::new(405, TEXT, "this server only reads: GET or HEAD\n");
    }
    if asked.has_body {
        return Answer::new(413, TEXT, "this server takes no content\n");
    }
    match page(site, &asked.url) {
        Ok(Some(answer)) => answer,
        Ok(None) => Answer::new(404, TEXT, "there is no such page, experiment or run; / lists what there is\n"),
        Err(error) => Answer::new(500, TEXT, format!("{error}\n")),
    }
}

/// Whether a Host header names this machine as seen from itself, at any port (a tunnel may have another one).
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    matches!(name.to_ascii_lowercase().as_str(), "localhost" | "127.0.0.1" | "::1")
}

/// `None` where there is no such page.
fn page(site: &Site, url: &str) -> Result<Option<Answer>> {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let Some(path) = path.strip_prefix('/') else { return Ok(None) };
    let decoded = path.split('/').map(|part| percent_decode_str(part).decode_utf8().ok());
    let Some(parts) = decoded.collect::<Option<Vec<_>>>() else { return Ok(None) };
    let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
    Ok(match parts[..] {
        [""] => Some(Answer::html(site.overview()?)),
        ["style.css"] => Some(Answer::new(200, CSS, STYLE)),
        ["tables.js"] => Some(Answer::new(200, SCRIPT, TABLES)),
        ["refresh.js"] => Some(Answer::new(200, SCRIPT, REFRESH)),
        ["compare"] => Some(Answer::html(COMPARE)),
        ["compare.css"] => Some(Answer::new(200, CSS, COMPARE_STYLE)),
        ["compare.js"] => Some(Answer::new(200, SCRIPT, COMPARE_SCRIPT)),
        ["runs.json"] => Some(runs(site, &Parameters::of(url))?),
        ["losses.json"] => Some(told(losses(site, &Parameters::of(url).all("run")), "")?),
        ["state.json"] => Some(Answer::new(200, JSON, site.state()?)),
        ["experiments", name] => site.experiment(name)?.map(Answer::html),
        ["experiments", name, "report"] => {
            site.report(name)?.map(|report| Answer { policy: REPORT_POLICY, ..Answer::html(report) })
        }
        ["experiments", name, "runs", id] => site.run(name, id)?.map(Answer::html),
        _ => None,
    })
}

/// The runs that are named, or else those that a filter selects.
fn runs(site: &Site, parameters: &Parameters) -> Result<Answer> {
    let (names, filter) = (parameters.all("run"), parameters.first("filter"));
    told(if names.is_empty() { filtered(site, filter) } else { chosen(site, &names) }, filter)
}

/// JSON, or why there is none if that is what was asked: `text`, or too much.
fn told(made: Result<Vec<u8>>, text: &str) -> Result<Answer> {
    let error = match made {
        Ok(made) => return Ok(Answer::new(200, JSON, made)),
        Err(error) => error,
    };
    let Some(refusal) = Refusal::of(&error, text) else { return Err(error) };
    Ok(Answer::new(400, JSON, json("the error", &refusal)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::named::MOST_NAMED;
    use crate::store::record::Record;
    use crate::store::{Artefacts, Store};
    use ptq::recon::trace::UnitTrace;
    use serde_json::Value;

    fn record() -> Record {
        Record::sample("", "qdrop", "W2A4", 1).storable()
    }

    /// Experiment `x` with a run, and a file beside the results.
    fn results() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let results = folder.path().join("results");
        for experiment in ["x", "a b"] {
            let store = Store::new(&results, experiment);
            let _lock = store.lock().unwrap();
            store.write_run(&record(), "", &Artefacts::default()).unwrap();
        }
        std::fs::write(folder.path().join("report.html"), "secret").unwrap();
        std::fs::write(folder.path().join("secret"), "secret").unwrap();
        folder
    }

    fn get(site: &Site, url: &str) -> (u16, String) {
        let answer =
            answer(site, &Asked { reads: true, has_body: false, host: Some("localhost:1"), url: url.to_string() });
        (answer.status, String::from_utf8(answer.body).unwrap())
    }

    #[test]
    fn stored_experiments_and_runs_have_pages_and_nothing_else_has() {
        let folder = results();
        let site = Site::new(&folder.path().join("results"));
        let run = format!("/experiments/x/runs/{}", record().run_id);
        let pages = [
            "/",
            "/?x=1",
            "/experiments/x",
            "/experiments/a%20b",
            &run,
            "/style.css",
            "/compare?filter=%ff",
            "/compare.css",
            "/compare.js",
        ];
        for url in pages {
            assert_eq!(get(&site, url).0, 200, "{url}");
        }
        assert!(get(&site, "/").1.contains("/experiments/a%20b"));
        for url in [
            "",
            "//",
            "/experiments",
            "/experiments/",
            "/experiments/y",
            "/experiments/../x",
            "/experiments/x/",
            "/experiments/x/report",
            "/experiments/../report",
            "/experiments/%2e%2e/report",
            "/experiments/..%2f..%2fx",
            "/experiments/x%2f../report",
            "/experiments/x/runs/",
            "/experiments/x/runs/.",
            "/experiments/x/runs/..",
            "/experiments/x/runs/run-1%2f..",
            "/experiments/x/runs/..%2f..%2f..%2fsecret",
            "/experiments/x/runs/.lock",
            "/experiments/%ff",
            "/../secret",
            "/%2e%2e/secret",
            "/results/x/runs/run-1/record.json",
            "/compare/",
            "/compare/x",
            "/runs.json/",
            "http://localhost/",
        ] {
            let (status, body) = get(&site, url);
            assert_eq!(status, 404, "{url}");
            assert!(!body.contains("secret"), "{url}");
        }
        std::fs::write(folder.path().join("results/x/report.html"), "the report").unwrap();
        assert_eq!(get(&site, "/experiments/x/report"), (200, "the report".to_string()));
    }

    #[test]
    fn the_page_chooses_as_many_runs_as_are_compared() {
        assert!(COMPARE_SCRIPT.contains(&format!("MOST_CHOSEN = {MOST_NAMED},")));
    }

    #[test]
    fn other_hosts_and_methods_that_write_are_refused() {
        let folder = results();
        let site = Site::new(&folder.path().join("results"));
        let asked = |reads, has_body, host| Asked { reads, has_body, host, url: "/".to_string() };
        let status = |reads, host| answer(&site, &asked(reads, false, host)).status;
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "[::1]:80", "[::1]"] {
            assert_eq!(status(true, Some(host)), 200, "{host}");
        }
        for host in
            ["", "evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.nip.io", "[::2]", "10.0.0.1"]
        {
            assert_eq!(status(true, Some(host)), 421, "{host}");
        }
        assert_eq!(status(true, None), 421);
        assert_eq!(status(false, Some("localhost")), 405);
        assert_eq!(answer(&site, &asked(true, true, Some("localhost"))).status, 413);
    }

    fn get_json(site: &Site, url: &str) -> (u16, Value) {
        let (status, body) = get(site, url);
        (status, serde_json::from_str(&body).unwrap())
    }

    #[test]
    fn runs_are_selected_by_filter_or_by_name() {
        let folder = results();
        let site = Site::new(&folder.path().join("results"));
        let id = record().run_id;
        let (status, all) = get_json(&site, "/runs.json");
        assert_eq!((status, &all["stored"], all["runs"].as_array().unwrap().len()), (200, &2.into(), 2));
        let (_, one) = get_json(&site, "/runs.json?filter=experiment(%3D%22a+b%22)+%26+test(>=80%25)");
        assert_eq!((&one["runs"][0]["experiment"], &one["runs"][1]), (&"a b".into(), &Value::Null));
        let (status, none) = get_json(&site, "/runs.json?filter=method(rtn)");
        assert_eq!((status, none["runs"].as_array().unwrap().len()), (200, 0));
        assert!(none["why_none"].as_str().unwrap().contains("none has method(rtn)"), "{none}");

        let names =
            ["y", "..", "x/..", "%2e%2e", "..%2fresults%2fx"].map(|experiment| format!("&run={experiment}/{id}"));
        let (_, named) = get_json(&site, &format!("/runs.json?run=x/{id}&run=x&run={}", names.concat()));
        assert_eq!((&named["runs"][0]["id"], &named["runs"][1]), (&id.as_str().into(), &Value::Null));
        assert_eq!(named["missing"].as_array().unwrap().len(), 7, "{named}");
        let (status, refused) = get_json(&site, &format!("/runs.json?{}", "run=x/y&".repeat(MOST_NAMED + 1)));
        assert!(status == 400 && refused["message"].as_str().unwrap().contains("21 runs are named"), "{refused}");
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_refused_with_its_place() {
        let folder = results();
        let site = Site::new(&folder.path().join("results"));
        let (status, refused) = get_json(&site, "/runs.json?filter=%3Cb%3E+method(qdrop)");
        assert_eq!((status, &refused["place"]["at"], &refused["place"]["wrong"]), (400, &1.into(), &"<".into()));
        assert!(refused["help"].as_str().unwrap().contains("for example"), "{refused}");
        for filter in ["(".repeat(10_000), "method(".into(), "%00".into(), "a".repeat(10_000), "run(/[/)".into()] {
            assert_eq!(get(&site, &format!("/runs.json?filter={filter}")).0, 400, "{filter:.20}");
        }
    }

    #[test]
    fn losses_are_of_the_runs_that_are_named() {
        let folder = results();
        let results = folder.path().join("results");
        let mut trace = UnitTrace::new("<b>stem", "weights");
        (trace.iterations, trace.loss) = (vec![1, 2], vec![0.1, f64::NAN]);
        let store = Store::new(&results, "x");
        let artefacts = Artefacts { traces: vec![trace], ..Artefacts::default() };
        store.write_run(&record(), "", &artefacts).unwrap();
        let id = record().run_id;
        std::fs::write(results.join("a b/runs").join(&id).join("trace.json"), "[{").unwrap();
        let site = Site::new(&results);
        let (status, losses) = get_json(&site, &format!("/losses.json?run=x/{id}&run=a+b/{id}&run=x/none"));
        let traces = &losses["runs"][0]["traces"];
        assert_eq!((status, &traces[0]["unit"], &traces[0]["iterations"][1]), (200, &"<b>stem".into(), &2.into()));
        assert_eq!(traces[0]["loss"].to_string(), "[0.1,null]");
        assert!(losses["runs"][1]["problem"].as_str().unwrap().contains("trace.json"), "{losses}");
        assert_eq!(losses["missing"][0], "x/none");
        assert_eq!(get_json(&site, "/losses.json").1["runs"], Value::Array(vec![]));
        assert_eq!(get_json(&site, &format!("/losses.json?{}", "run=x/y&".repeat(MOST_NAMED + 1))).0, 400);
    }
}
