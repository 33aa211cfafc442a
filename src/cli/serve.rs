//! `harness serve`.

use super::Exit;
use super::session::ResultsArgs;
use super::signals::interruptible;
use crate::error::Result;
use crate::serve::Server;

#[derive(clap::Args)]
#[command(after_help = DETAILS)]
pub struct Args {
    /// Port to listen on; 0 takes a free one.
    #[arg(long, value_name = "N", default_value_t = 7070)]
    port: u16,
    #[command(flatten)]
    results: ResultsArgs,
}

const DETAILS: &str = "\
Pages of all experiments under the folder of results: which grids run, how far they are, the losses of the unit at hand, \
finished runs, reports. They refresh by themselves; /state.json has the same for programs. /compare lets you choose runs \
by the filters of `harness list`, and shows in what they differ, their losses, and any two numbers of them.

Listens on 127.0.0.1 alone, for everybody with an account on this machine, and only reads. From elsewhere: \
ssh -L 7070:localhost:7070 MACHINE. A connection is for one request without content, and ends after a minute; \
800 may be open at once.";

/// Serves pages until Ctrl-C.
pub fn serve(args: &Args) -> Result<Exit> {
    let server = Server::bind(&args.results.results, args.port)?;
    let cancelled = interruptible()?;
    say!("serving {} at http://{}/ (Ctrl-C stops)", args.results.results.display(), server.address());
    server.run(&cancelled)?;
    Ok(Exit::Done)
}
