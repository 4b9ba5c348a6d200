//! Bitcoin Core's JSON-RPC on the embedded node: enough to look at the chain and to hand in transactions and blocks.
//!
//! Runs on a thread of its own; every call is put to the node's thread and waits for it. Only loopback addresses may be
//! listened on without a password. Bounds: [`CONNECTIONS_MAX`] connections, [`BODY_LEN_MAX`] bytes and [`BATCH_MAX`] calls a
//! request, [`REQUEST_TIMEOUT`] for one, [`IDLE_TIMEOUT`] without a byte.

mod methods;
mod server;

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use adit_hasher::Digest;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{NodeLink, StartError};

/// Connections served at a time; others wait.
pub(super) const CONNECTIONS_MAX: usize = 16;
/// Bytes of a request: a block of four million, in hexadecimal, and a margin.
pub(super) const BODY_LEN_MAX: usize = 8_100_000;
/// Calls in one request.
const BATCH_MAX: usize = 100;
/// From the first byte of a request's body to its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Without a byte from or to a client.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(40);
/// How long a wrong password waits for its answer.
const REFUSAL_DELAY: Duration = Duration::from_millis(250);
/// Calls that run at a time: they wait for the node's thread, or verify scripts.
const CALLS_MAX: usize = 2;

const INVALID_REQUEST: i32 = -32_600;
const METHOD_NOT_FOUND: i32 = -32_601;
const PARSE_ERROR: i32 = -32_700;

/// Where JSON-RPC listens and who may call.
#[derive(Clone, Debug)]
pub struct RpcConfig {
    /// A loopback address, unless there is a password.
    pub listen: SocketAddr,
    /// Who may call; without it, everybody who reaches the address.
    pub auth: Option<RpcAuth>,
}

/// A user and a password, as HTTP's basic authentication carries them.
#[derive(Clone)]
pub struct RpcAuth {
    /// The user, without a colon.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for RpcAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcAuth").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The server's thread.
pub(super) struct RpcServer {
    pub(super) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What every request needs.
struct Shared {
    link: NodeLink,
    /// The digest of the only Authorization header that is let in: digests are compared, so time tells nothing.
    authorization: Option<Digest>,
}

impl RpcServer {
    pub(super) fn start(config: &RpcConfig, link: NodeLink) -> Result<Self, StartError> {
        if !config.listen.ip().is_loopback() && config.auth.is_none() {
            return Err(StartError::RpcOpen(config.listen));
        }
        let failed = |error| StartError::Rpc(config.listen, error);
        let listener = TcpListener::bind(config.listen).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let authorization = config.auth.as_ref().map(|auth| {
            let credentials = server::base64(format!("{}:{}", auth.user, auth.password).as_bytes());
            Digest::of(format!("Basic {credentials}").as_bytes())
        });
        let shared = Arc::new(Shared { link, authorization });
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().max_blocking_threads(CALLS_MAX).build().map_err(failed)?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("node-rpc".to_owned());
        let thread = thread
            .spawn(move || {
                if let Err(error) = runtime.block_on(server::serve(listener, shared, stopped)) {
                    tracing::error!(%error, "JSON-RPC ended");
                }
                // Calls that run end with the node's answer.
                runtime.shutdown_timeout(REQUEST_TIMEOUT);
            })
            .map_err(StartError::Thread)?;
        tracing::info!(%address, "JSON-RPC of the embedded node");
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for RpcServer {
    fn drop(&mut self) {
        self.stop = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of JSON-RPC panicked");
        }
    }
}

/// An error as JSON-RPC carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RpcError {
    code: i32,
    message: String,
}

impl RpcError {
    fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// One HTTP request: who asks, then what.
async fn handle(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    // A browser names the page that sends it here; no page has business with a node.
    if headers.contains_key(header::ORIGIN) {
        return StatusCode::FORBIDDEN.into_response();
    }
    if let Some(expected) = shared.authorization {
        let given = headers.get(header::AUTHORIZATION).map(|value| Digest::of(value.as_bytes()));
        if given != Some(expected) {
            tokio::time::sleep(REFUSAL_DELAY).await;
            let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"jsonrpc\"")];
            return (StatusCode::UNAUTHORIZED, challenge).into_response();
        }
    }
    let answered = tokio::task::spawn_blocking(move || answer(&shared.link, &body));
    match answered.await {
        Ok((status, body)) => {
            (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The answer to a request's body: one call or a batch.
fn answer(link: &NodeLink, body: &[u8]) -> (StatusCode, Value) {
    let request: Value = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(_) => {
            let error = RpcError::new(PARSE_ERROR, "Parse error");
            return (StatusCode::INTERNAL_SERVER_ERROR, reply(&Value::Null, Err(error), false));
        }
    };
    match request {
        Value::Array(calls) if calls.len() > BATCH_MAX => {
            let error = RpcError::new(INVALID_REQUEST, format!("at most {BATCH_MAX} calls in a batch"));
            (StatusCode::BAD_REQUEST, reply(&Value::Null, Err(error), false))
        }
        Value::Array(calls) => {
            let replies = calls.iter().map(|one| call(link, one).1).collect();
            (StatusCode::OK, Value::Array(replies))
        }
        one => call(link, &one),
    }
}

/// Makes one call. Version 2.0 answers every call with status 200, as Bitcoin Core does.
fn call(link: &NodeLink, request: &Value) -> (StatusCode, Value) {
    let version_2 = request.get("jsonrpc").and_then(Value::as_str) == Some("2.0");
    let id = request.get("id").unwrap_or(&Value::Null);
    let result = match request.get("method").and_then(Value::as_str) {
        Some(method) => methods::call(link, method, request.get("params").unwrap_or(&Value::Null)),
        None if request.is_object() => Err(RpcError::new(INVALID_REQUEST, "Missing method")),
        None => Err(RpcError::new(INVALID_REQUEST, "Invalid Request object")),
    };
    let status = match &result {
        Err(error) if !version_2 => match error.code {
            INVALID_REQUEST => StatusCode::BAD_REQUEST,
            METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        },
        _ => StatusCode::OK,
    };
    (status, reply(id, result, version_2))
}

fn reply(id: &Value, result: Result<Value, RpcError>, version_2: bool) -> Value {
    let error = |error: RpcError| json!({"code": error.code, "message": error.message});
    match (result, version_2) {
        (Ok(result), true) => json!({"jsonrpc": "2.0", "result": result, "id": id}),
        (Err(refusal), true) => json!({"jsonrpc": "2.0", "error": error(refusal), "id": id}),
        (Ok(result), false) => json!({"result": result, "error": null, "id": id}),
        (Err(refusal), false) => json!({"result": null, "error": error(refusal), "id": id}),
    }
}
