//! Bitcoin Core's JSON-RPC over HTTP, from the side that asks.
//!
//! A [`Lane`] is one connection, kept open between calls, with one call at a time: what may take long has a lane of its own.
//! Bounds: [`CONNECT_PATIENCE`] for a connection, and for each [`Method`] the time and the length of its answer. Dropping a
//! call's future closes its connection. The password is read again for each new connection: Bitcoin Core makes a new cookie
//! when it starts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method as Verb, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::CoreRpcAuth;
use super::fault::RpcFault;

/// How long a connection may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a cookie that are read.
const COOKIE_LEN_MAX: u64 = 1_024;
/// Bytes of an HTTP head.
const HEAD_LEN_MAX: usize = 64 * 1_024;

/// A method and what its answer may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Method {
    pub(super) name: &'static str,
    pub(super) patience: Duration,
    /// Bytes of the answer's body.
    pub(super) len_max: usize,
}

/// Bytes of an answer that holds a block or a template: a block has 4 MB at most, a template twice that in hexadecimal and
/// some hundred bytes for each transaction.
const BLOCK_ANSWER_LEN_MAX: usize = 64 << 20;
/// Bytes of any other answer.
const SHORT_ANSWER_LEN_MAX: usize = 1 << 20;

const fn short(name: &'static str, patience_s: u64) -> Method {
    Method { name, patience: Duration::from_secs(patience_s), len_max: SHORT_ANSWER_LEN_MAX }
}

const fn long(name: &'static str, patience_s: u64) -> Method {
    Method { name, patience: Duration::from_secs(patience_s), len_max: BLOCK_ANSWER_LEN_MAX }
}

pub(super) const BLOCKCHAIN_INFO: Method = short("getblockchaininfo", 30);
pub(super) const BEST_BLOCK_HASH: Method = short("getbestblockhash", 30);
pub(super) const BLOCK_HEADER: Method = short("getblockheader", 30);
pub(super) const BLOCK: Method = long("getblock", 60);
pub(super) const BLOCK_TEMPLATE: Method = long("getblocktemplate", 60);
/// The node answers when something is new, which on a quiet chain can take long.
pub(super) const LONG_POLL: Method = long("getblocktemplate", 900);
/// The node answers when it has checked the block.
pub(super) const SUBMIT_BLOCK: Method = short("submitblock", 120);

/// For methods that take none.
pub(super) const NO_PARAMS: [u8; 0] = [];

/// Where a node is and who asks.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// `host:port`.
    pub(super) address: String,
    pub(super) auth: CoreRpcAuth,
}

impl Endpoint {
    fn cookie(&self) -> Option<PathBuf> {
        match &self.auth {
            CoreRpcAuth::Cookie(path) => Some(path.clone()),
            CoreRpcAuth::Password { .. } => None,
        }
    }

    /// The Authorization header of a new connection.
    fn authorization(&self) -> Result<HeaderValue, RpcFault> {
        let credentials = match &self.auth {
            CoreRpcAuth::Password { user, password } => format!("{user}:{password}"),
            CoreRpcAuth::Cookie(path) => read_cookie(path)
                .map_err(|error| RpcFault::Cookie { path: path.clone(), error: error.to_string() })?,
        };
        let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(credentials)))
            .expect("base64 is visible ASCII");
        value.set_sensitive(true);
        Ok(value)
    }

    fn lost(&self, error: &dyn std::fmt::Display) -> RpcFault {
        RpcFault::Lost { address: self.address.clone(), error: error.to_string() }
    }
}

fn read_cookie(path: &std::path::Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut cookie = String::new();
    std::fs::File::open(path)?.take(COOKIE_LEN_MAX).read_to_string(&mut cookie)?;
    Ok(cookie.trim_end().to_owned())
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    authorization: HeaderValue,
}

/// A connection to a node; made when it is needed, and again after the node closed it.
pub(super) struct Lane {
    endpoint: Arc<Endpoint>,
    connection: Option<Connection>,
}

#[derive(Serialize)]
struct Call<'a, P> {
    jsonrpc: &'static str,
    id: u8,
    method: &'a str,
    params: P,
}

#[derive(Deserialize)]
struct Answer<T> {
    result: Option<T>,
    error: Option<NodeError>,
}

#[derive(Deserialize)]
struct NodeError {
    code: i32,
    message: String,
}

/// The body of an answer; parsed where it lies.
pub(super) struct Body {
    method: Method,
    status: StatusCode,
    bytes: Bytes,
}

impl Lane {
    pub(super) fn new(endpoint: Arc<Endpoint>) -> Self {
        Self { endpoint, connection: None }
    }

    /// Calls a method and takes its result, which must be there.
    pub(super) async fn call<T: for<'de> Deserialize<'de>>(
        &mut self,
        method: Method,
        params: impl Serialize,
    ) -> Result<T, RpcFault> {
        self.ask(method, params).await?.result()
    }

    /// Calls a method. A connection that the node closed while it was idle is made anew, once; a call that may have
    /// reached the node is not repeated.
    pub(super) async fn ask(&mut self, method: Method, params: impl Serialize) -> Result<Body, RpcFault> {
        let call = Call { jsonrpc: "1.0", id: 1, method: method.name, params };
        let body = serde_json::to_vec(&call).expect("parameters are plain values");
        let asked = timeout(method.patience, self.exchange(method, body.into())).await;
        let silent = RpcFault::Silent { method: method.name, patience: method.patience };
        let body = asked.unwrap_or(Err(silent));
        if body.is_err() {
            self.connection = None;
        }
        body
    }

    async fn exchange(&mut self, method: Method, body: Bytes) -> Result<Body, RpcFault> {
        let mut kept = self.connection.take();
        if let Some(connection) = &mut kept
            && connection.sender.ready().await.is_err()
        {
            kept = None;
        }
        let mut connection = match kept {
            Some(kept) => kept,
            None => self.connect().await?,
        };
        let mut sent = connection.sender.try_send_request(self.request(&connection, &body)).await;
        // Not a byte of it was written: the node had closed the connection.
        if sent.as_mut().is_err_and(|error| error.take_message().is_some()) {
            connection = self.connect().await?;
            sent = connection.sender.try_send_request(self.request(&connection, &body)).await;
        }
        let response = sent.map_err(|error| self.endpoint.lost(error.error()))?;
        let body = self.receive(method, response).await?;
        self.connection = Some(connection);
        Ok(body)
    }

    fn request(&self, connection: &Connection, body: &Bytes) -> Request<Full<Bytes>> {
        Request::builder()
            .method(Verb::POST)
            .uri("/")
            .header(HOST, &self.endpoint.address)
            .header(CONTENT_TYPE, "application/json")
            .header(AUTHORIZATION, &connection.authorization)
            .body(Full::new(body.clone()))
            .expect("an address that was connected to is a header's value")
    }

    async fn connect(&self) -> Result<Connection, RpcFault> {
        let endpoint = &self.endpoint;
        let unreachable = |error: String| RpcFault::Unreachable { address: endpoint.address.clone(), error };
        let authorization = endpoint.authorization()?;
        let stream = timeout(CONNECT_PATIENCE, TcpStream::connect(&endpoint.address)).await;
        let stream = stream
            .map_err(|_| unreachable(format!("no answer within {} s", CONNECT_PATIENCE.as_secs())))?
            .map_err(|error| unreachable(error.to_string()))?;
        // A call is one write: nothing is gained by waiting for more.
        stream.set_nodelay(true).map_err(|error| unreachable(error.to_string()))?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_LEN_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| endpoint.lost(&error))?;
        // Ends with the sender; what goes wrong is told to the caller.
        tokio::spawn(connection);
        Ok(Connection { sender, authorization })
    }

    async fn receive(&self, method: Method, response: Response<Incoming>) -> Result<Body, RpcFault> {
        let status = response.status();
        let address = || self.endpoint.address.clone();
        match status {
            StatusCode::UNAUTHORIZED => {
                return Err(RpcFault::Unauthorized { address: address(), cookie: self.endpoint.cookie() });
            }
            StatusCode::FORBIDDEN => {
                return Err(RpcFault::Forbidden { address: address(), method: method.name });
            }
            StatusCode::SERVICE_UNAVAILABLE => return Err(RpcFault::Busy),
            _ => {}
        }
        let too_long = || RpcFault::TooLong { method: method.name, len_max: method.len_max };
        // What announces its length is not waited for.
        if response.body().size_hint().lower() > method.len_max as u64 {
            return Err(too_long());
        }
        let body = Limited::new(response.into_body(), method.len_max).collect().await;
        let body = body.map_err(|error| match error.downcast::<LengthLimitError>() {
            Ok(_) => too_long(),
            Err(error) => self.endpoint.lost(&error),
        })?;
        Ok(Body { method, status, bytes: body.to_bytes() })
    }
}

impl Body {
    /// The result.
    ///
    /// # Errors
    /// The node's error, or an answer without a result.
    pub(super) fn result<'a, T: Deserialize<'a>>(&'a self) -> Result<T, RpcFault> {
        self.result_or_null()?.ok_or_else(|| self.malformed("there is no result"))
    }

    /// The result, which may be null.
    ///
    /// # Errors
    /// As for [`result`](Self::result).
    pub(super) fn result_or_null<'a, T: Deserialize<'a>>(&'a self) -> Result<Option<T>, RpcFault> {
        let method = self.method.name;
        let answer: Answer<T> = serde_json::from_slice(&self.bytes).map_err(|error| {
            // Errors come with a status, and with JSON; without JSON the status says more.
            if self.status == StatusCode::OK {
                self.malformed(error)
            } else {
                RpcFault::Http { method, status: self.status.as_u16() }
            }
        })?;
        match answer.error {
            None => Ok(answer.result),
            Some(NodeError { code, message }) => {
                Err(RpcFault::Node { method, code, message: shown(&message) })
            }
        }
    }

    /// The answer is not what the method gives.
    pub(super) fn malformed(&self, error: impl std::fmt::Display) -> RpcFault {
        RpcFault::Malformed { method: self.method.name, error: error.to_string() }
    }
}

/// A node's words as the log may show them: short, and nothing that moves a terminal's cursor.
pub(super) fn shown(words: &str) -> String {
    const SHOWN_LEN_MAX: usize = 300;
    words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN_LEN_MAX).collect()
}
