//! `harness serve`: pages of all experiments, and of the grids that run, for a browser on this machine.
//!
//! It listens on loopback alone, reads and never writes. What a URL names is looked up among what is stored; no path is
//! ever made of it. Requests for other hosts than loopback are refused: a page elsewhere whose name was made to resolve
//! to 127.0.0.1 (DNS rebinding) sees nothing.

mod live;
mod route;
mod site;

use crate::error::{Error, Result};
use route::{Answer, Asked, answer};
use site::Site;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tiny_http::{Header, Method, Request, Response};

/// Requests answered at once: one client that reads slowly does not keep others waiting.
const THREADS: usize = 4;
/// How long a thread waits for a request before it looks whether it should stop.
const PATIENCE: Duration = Duration::from_millis(200);

/// A server that listens.
pub struct Server {
    http: tiny_http::Server,
    address: SocketAddr,
    site: Site,
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
        let http = tiny_http::Server::from_listener(listener, None)
            .map_err(|error| Error::Usage(format!("cannot serve on port {port}: {error}")))?;
        Ok(Self { http, address, site: Site::new(results) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests until `cancelled`. Errors: no requests can be received any more.
    pub fn run(&self, cancelled: &AtomicBool) -> Result<()> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| self.work(cancelled))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Ok(())))
        })
    }

    fn work(&self, cancelled: &AtomicBool) -> Result<()> {
        while !cancelled.load(Ordering::Relaxed) {
            let received = self.http.recv_timeout(PATIENCE);
            if let Some(request) =
                received.map_err(|error| Error::Usage(format!("cannot receive requests: {error}")))?
            {
                self.respond(request);
            }
        }
        Ok(())
    }

    fn respond(&self, request: Request) {
        let host = request.headers().iter().find(|header| header.field.equiv("Host"));
        let asked = Asked {
            reads: matches!(request.method(), Method::Get | Method::Head),
            host: host.map(|header| header.value.as_str()),
            url: request.url(),
        };
        let Answer { status, content_type, policy, body } = answer(&self.site, &asked);
        let headers = [
            ("Content-Type", content_type),
            ("Content-Security-Policy", policy),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cache-Control", "no-store"),
        ];
        let allow = (status == 405).then_some(("Allow", "GET, HEAD"));
        let headers = headers.into_iter().chain(allow);
        let response = headers
            .filter_map(|(name, value)| Header::from_bytes(name, value).ok())
            .fold(Response::from_data(body).with_status_code(status), Response::with_header);
        // A client that went away needs no answer.
        let _ = request.respond(response);
    }
}
