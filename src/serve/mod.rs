//! `harness serve`: pages of all experiments, and of the grids that run, for a browser on this machine.
//!
//! The page that compares runs is a script (`report/templates/compare.js`) which asks for JSON: what a filter selects is
//! decided here, by the code that `harness list` has.
//!
//! It listens on loopback alone, reads and never writes. What a URL names is looked up among what is stored; no path is
//! ever made of it. Requests for other hosts than loopback are refused: a page elsewhere whose name was made to resolve
//! to 127.0.0.1 (DNS rebinding) sees nothing.
//!
//! Whoever has an account here can connect, and so can any page in the browser. So what a client may take is bounded: one
//! request for each connection, a short head, no body, and so much time for both to come and go.

mod json;
mod live;
mod losses_json;
mod named;
mod parameters;
mod refusal;
mod route;
mod runs_json;
mod site;

use crate::error::{Error, Result};
use http_body_util::Full;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use route::{Answer, Asked, answer};
use site::Site;
use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Pages made at once.
const THREADS: usize = 4;
/// Connections at once; a process may have about a thousand files open.
const MOST_CONNECTIONS: usize = 800;
/// Bytes of the longest head of a request, all of which is kept.
const LONGEST_HEAD: usize = 1 << 14;
/// How long a head may take to arrive, and all of a connection, with its answer.
const HEAD_TIME: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(60);
/// How long the server waits for a connection before it looks whether it should stop.
const PATIENCE: Duration = Duration::from_millis(200);

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    site: Arc<Site>,
}

impl Server {
    /// Listens on loopback for requests about `results`; port 0 stands for any free one.
    ///
    /// Errors: `results` is no folder; the port is taken or not allowed.
    pub fn bind(results: &Path, port: u16) -> Result<Self> {
        if !results.is_dir() {
            let results = results.display();
            return Err(Error::NothingMatched(format!("there is no folder {results}; --results names another")));
        }
        let refused = |error: std::io::Error| match error.kind() {
            ErrorKind::AddrInUse => Error::Usage(format!(
                "port {port} is taken, perhaps by another `harness serve`; --port names another, --port 0 takes a free one"
            )),
            ErrorKind::PermissionDenied => {
                Error::Usage(format!("port {port} is reserved for the system: {error}; --port names another"))
            }
            _ => Error::Usage(format!("cannot listen on port {port}: {error}")),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Self { listener, address, site: Arc::new(Site::new(results)) })
    }

    /// Where it listens, with the port that the system chose for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests until `cancelled`. Errors: the system has no threads or sockets to do that with.
    pub fn run(&self, cancelled: &AtomicBool) -> Result<()> {
        let unable = |error: std::io::Error| Error::Usage(format!("cannot serve at {}: {error}", self.address));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(THREADS).build();
        let runtime = runtime.map_err(unable)?;
        let ended = runtime.block_on(self.accept(cancelled));
        // Connections that are open are of no use any more.
        runtime.shutdown_background();
        ended.map_err(unable)
    }

    async fn accept(&self, cancelled: &AtomicBool) -> std::io::Result<()> {
        let listener = self.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        while !cancelled.load(Ordering::Relaxed) {
            let Ok(Ok(place)) = timeout(PATIENCE, room.clone().acquire_owned()).await else { continue };
            match timeout(PATIENCE, listener.accept()).await {
                Ok(Ok((stream, _))) => {
                    let site = self.site.clone();
                    tokio::spawn(async move {
                        converse(stream, site).await;
                        drop(place);
                    });
                }
                // A client that has gone already, or too many open files: the next one may be served.
                Ok(Err(_)) => sleep(PATIENCE).await,
                Err(_) => {}
            }
        }
        Ok(())
    }
}

/// Answers the request of one connection.
async fn converse(stream: TcpStream, site: Arc<Site>) {
    let service = service_fn(move |request| respond(site.clone(), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(LONGEST_HEAD)
        .keep_alive(false)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service);
    // A client that is too slow, breaks off, or speaks no HTTP needs no other answer.
    let _ = timeout(LONGEST, connection).await;
}

async fn respond(site: Arc<Site>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let has_body = !body.is_end_stream();
    let made = tokio::task::spawn_blocking(move || answer(&site, &asked(&head, has_body))).await;
    Ok(response(made.unwrap_or_else(|_| Answer::of_a_bug())))
}

fn asked(head: &Parts, has_body: bool) -> Asked<'_> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let host = hosts.next().filter(|_| hosts.next().is_none());
    Asked {
        reads: matches!(head.method, Method::GET | Method::HEAD),
        has_body,
        host: host.and_then(|host| host.to_str().ok()),
        url: head.uri.to_string(),
    }
}

fn response(Answer { status, content_type, policy, body }: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    let allow = (status == 405).then_some((header::ALLOW, "GET, HEAD"));
    for (name, value) in headers.into_iter().chain(allow) {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
