//! The HTTP server in front of the [provisioning certification service](crate::pcs), with a bound for everything:
//! connections, the size of a head and the time for it, the time for the whole exchange. A connection carries one request;
//! bodies of requests are not read.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, StatusCode, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::Machine;
use crate::follow::Follower;
use crate::pcs::{self, Answer};

/// Connections that are served at once; more wait in the kernel's queue.
pub const MAX_CONNECTIONS: usize = 32;
/// The largest head of a request.
pub const MAX_HEAD_BYTES: usize = 8192;
/// The longest that the head of a request may take.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest that one exchange may take, from connecting to the end of the answer.
pub const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(20);

const MAX_HEADERS: usize = 64;
/// After an error of `accept` (no more file descriptors, say), before the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The machine that all connections answer from, as its file has it.
type Shared = Arc<Mutex<Follower<Arc<Machine>>>>;

/// Serves this machine's collateral over HTTP until `shutdown` is done; exchanges that are under way may finish. Each
/// answer shows the machine as its file has it at that moment.
pub async fn serve_collateral(
    machine: Arc<Machine>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) {
    let shared: Shared = Arc::new(Mutex::new(Follower::of(machine)));
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut exchanges = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let next = async {
            (
                places.clone().acquire_owned().await,
                listener.accept().await,
            )
        };
        let (place, accepted) = tokio::select! {
            () = &mut shutdown => break,
            next = next => next,
        };
        match accepted {
            Ok((connection, _)) => {
                let shared = shared.clone();
                exchanges.spawn(async move {
                    // A client that breaks off or is too slow is nobody's concern but its own.
                    let _ = timeout(EXCHANGE_TIMEOUT, exchange(connection, shared)).await;
                    drop(place);
                });
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
        while exchanges.try_join_next().is_some() {}
    }
    drop(listener);
    while exchanges.join_next().await.is_some() {}
}

async fn exchange(connection: TcpStream, shared: Shared) -> hyper::Result<()> {
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let answer = answer(&shared, request.method(), request.uri());
        async move { Ok::<_, Infallible>(answer) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(connection), service)
        .await
}

fn answer(shared: &Shared, method: &Method, uri: &Uri) -> Answer {
    // What a panic could leave behind is at worst an older state of the machine.
    let mut follower = shared.lock().unwrap_or_else(PoisonError::into_inner);
    match follower.current() {
        Ok(machine) => pcs::answer(machine, method, uri),
        Err(error) => pcs::refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}
