//! A node's JSON-RPC, as `bitcoin-cli` speaks it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

/// `adit:adit` in base64: user and password of the test pools' nodes.
const CREDENTIALS: &str = "YWRpdDphZGl0";
const TIMEOUT: Duration = Duration::from_secs(20);

/// A node that answers JSON-RPC over HTTP.
#[derive(Clone, Debug)]
pub struct Node {
    address: SocketAddr,
}

impl Node {
    /// The node whose JSON-RPC listens at an IP address and port.
    pub fn at(address: &str) -> Self {
        Self { address: address.parse().unwrap_or_else(|_| panic!("{address} is no address")) }
    }

    /// Calls `method`; the error is the node's own error object.
    ///
    /// # Panics
    /// If the node does not answer.
    pub fn try_call(&self, method: &str, params: &[Value]) -> Result<Value, Value> {
        self.ask(method, params)
            .unwrap_or_else(|error| panic!("{} does not answer {method}: {error}", self.address))
    }

    /// As [`try_call`](Self::try_call), of a node that may not be there.
    pub fn ask(&self, method: &str, params: &[Value]) -> io::Result<Result<Value, Value>> {
        let no_json = || io::Error::from(io::ErrorKind::InvalidData);
        let body = json!({ "jsonrpc": "1.0", "id": 1, "method": method, "params": params }).to_string();
        let mut stream = TcpStream::connect_timeout(&self.address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let host = self.address;
        let request = format!(
            "POST / HTTP/1.1\r\nHost: {host}\r\nAuthorization: Basic {CREDENTIALS}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        let (_, body) = answer.split_once("\r\n\r\n").ok_or_else(no_json)?;
        // A chunked body is JSON between its chunk sizes.
        let (start, end) = body.find('{').zip(body.rfind('}')).ok_or_else(no_json)?;
        let mut answer: Value = serde_json::from_str(&body[start..=end])?;
        Ok(match answer["error"].take() {
            Value::Null => Ok(answer["result"].take()),
            error => Err(error),
        })
    }

    /// Calls `method`, which must succeed.
    pub fn call(&self, method: &str, params: &[Value]) -> Value {
        self.try_call(method, params).unwrap_or_else(|error| panic!("{method} {params:?}: {error}"))
    }

    /// Height of the active chain.
    pub fn height(&self) -> u64 {
        self.call("getblockcount", &[]).as_u64().expect("a height is a number")
    }

    /// The block at `height` of the active chain.
    pub fn block(&self, height: u64) -> bitcoin::Block {
        let hash = self.call("getblockhash", &[json!(height)]);
        let raw = self.call("getblock", &[hash, json!(0)]);
        bitcoin::consensus::encode::deserialize_hex(raw.as_str().expect("a raw block is a string"))
            .expect("the node gives whole blocks")
    }
}
