//! A client of the Template Distribution Protocol over TCP and Noise, blocking.

#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use adit_codec::frame::{HEADER_LEN, PAYLOAD_LEN_MAX};
use adit_codec::keys::AuthorityPublicKey;
use adit_codec::message::{
    CoinbaseOutputConstraints, Message, Protocol, RequestTransactionData, SetupConnection, SubmitSolution,
};
use adit_codec::noise::{ACT2_LEN, EphemeralKey, Initiator, Sealer, SecureDeframer, sealed_len};
use adit_codec::{Encode, encode_frame, frame_len};
use adit_hasher::Target;
use adit_proto::mining::server::Solution;
use adit_proto::template::{PrevHash, Template};
use adit_roles::utc::Utc;

pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a provider says.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    SetUp,
    Template(Arc<Template>),
    Tip(Arc<PrevHash>),
    Transactions(u64, Vec<Vec<u8>>),
    NoTransactions(u64, String),
    Other(&'static str),
}

pub struct Client {
    pub stream: TcpStream,
    deframer: SecureDeframer,
    sealer: Sealer,
    told: VecDeque<Told>,
    /// The last template, and the tip that it is for.
    pub template: Option<Arc<Template>>,
    pub tip: Option<Arc<PrevHash>>,
    future: Vec<Arc<Template>>,
    last_id: u64,
}

impl Client {
    pub fn connect(address: SocketAddr, authority: &AuthorityPublicKey) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let (initiator, act1) = Initiator::new(EphemeralKey::new(&[7; 64]).unwrap());
        stream.write_all(&act1)?;
        let mut act2 = [0; ACT2_LEN];
        stream.read_exact(&mut act2)?;
        let session = initiator.finish(&act2, Some(authority), Utc::now().to_u32(), 10);
        let session = session.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Self {
            stream,
            deframer: SecureDeframer::new(session.opener, PAYLOAD_LEN_MAX),
            sealer: session.sealer,
            told: VecDeque::new(),
            template: None,
            tip: None,
            future: Vec::new(),
            last_id: 0,
        })
    }

    /// Connected and set up.
    pub fn set_up(address: SocketAddr, authority: &AuthorityPublicKey) -> Self {
        let mut client = Self::connect(address, authority).unwrap();
        client.send(&setup());
        assert_eq!(client.receive().unwrap(), Told::SetUp);
        client
    }

    /// Set up, with room for so many bytes of outputs.
    pub fn join(address: SocketAddr, authority: &AuthorityPublicKey, max_additional_size: u32) -> Self {
        let mut client = Self::set_up(address, authority);
        client.send(&constraints(max_additional_size));
        client
    }

    pub fn send<M: Encode>(&mut self, message: &M) {
        self.try_send(message).unwrap();
    }

    /// An error if the connection is over.
    pub fn try_send<M: Encode>(&mut self, message: &M) -> io::Result<()> {
        let mut frame = vec![0; frame_len(message)];
        encode_frame(message, &mut frame).unwrap();
        self.send_frame(&frame)
    }

    pub fn send_frame(&mut self, frame: &[u8]) -> io::Result<()> {
        let mut sealed = vec![0; sealed_len(frame.len() - HEADER_LEN)];
        self.sealer.seal_frame_into(frame, &mut sealed).unwrap();
        self.stream.write_all(&sealed)
    }

    /// The next message; an error when the connection is over. Ids rise, and a tip names what was told before.
    pub fn receive(&mut self) -> io::Result<Told> {
        let mut bytes = vec![0; 64 << 10];
        while self.told.is_empty() {
            let len = self.stream.read(&mut bytes)?;
            if len == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut input = &mut bytes[..len];
            while let Some((header, payload)) = self.deframer.next_frame(&mut input).unwrap() {
                let decoded = Message::decode(header, payload, Protocol::TemplateDistribution).unwrap();
                self.told.push_back(told(&decoded.message));
            }
        }
        let told = self.told.pop_front().unwrap();
        match &told {
            Told::Template(template) => {
                assert!(template.template_id > self.last_id, "ids rise");
                self.last_id = template.template_id;
                match template.future_template {
                    true => self.future.push(Arc::clone(template)),
                    false => {
                        assert!(self.tip.is_some(), "a template for the tip follows a tip");
                        self.template = Some(Arc::clone(template));
                    }
                }
            }
            Told::Tip(tip) => {
                let named = self.future.iter().find(|future| future.template_id == tip.template_id);
                self.template = Some(Arc::clone(named.expect("a tip names a future template")));
                self.tip = Some(Arc::clone(tip));
                self.future.clear();
            }
            _ => {}
        }
        Ok(told)
    }

    /// Receives until what fits comes.
    #[track_caller]
    pub fn wait_for(&mut self, fits: impl Fn(&Told) -> bool) -> Told {
        loop {
            let told = self.receive().expect("the connection lasts");
            if fits(&told) {
                return told;
            }
        }
    }

    /// Receives until a tip on another block comes.
    #[track_caller]
    pub fn wait_for_tip(&mut self) {
        let before = self.tip.as_ref().map(|tip| tip.prev_hash);
        self.wait_for(|told| matches!(told, Told::Tip(tip) if Some(tip.prev_hash) != before));
    }

    /// Asks for a template's transactions and waits for the answer.
    pub fn transactions(&mut self, template_id: u64) -> Told {
        self.send(&RequestTransactionData { template_id });
        self.wait_for(|told| matches!(told, Told::Transactions(..) | Told::NoTransactions(..)))
    }

    pub fn submit(&mut self, solution: &Solution) {
        let number = |at: usize| u32::from_le_bytes(solution.header[at..at + 4].try_into().unwrap());
        self.send(&SubmitSolution {
            template_id: solution.template_id,
            version: number(0),
            header_timestamp: number(68),
            header_nonce: number(76),
            coinbase_tx: &solution.coinbase_tx,
        });
    }

    /// Reads until the provider closes.
    pub fn read_to_end(&mut self) -> Vec<Told> {
        std::iter::from_fn(|| self.receive().ok()).collect()
    }
}

pub fn setup() -> SetupConnection<'static> {
    SetupConnection {
        protocol: 2,
        min_version: 2,
        max_version: 2,
        flags: 0,
        endpoint_host: b"localhost",
        endpoint_port: 8442,
        vendor: b"tester",
        hardware_version: b"",
        firmware: b"1",
        device_id: b"",
    }
}

pub fn constraints(max_additional_size: u32) -> CoinbaseOutputConstraints {
    CoinbaseOutputConstraints {
        coinbase_output_max_additional_size: max_additional_size,
        coinbase_output_max_additional_sigops: 4,
    }
}

fn told(message: &Message<'_>) -> Told {
    match message {
        Message::SetupConnectionSuccess(_) => Told::SetUp,
        Message::NewTemplate(template) => Told::Template(Arc::new(Template {
            template_id: template.template_id,
            future_template: template.future_template,
            version: template.version,
            coinbase_tx_version: template.coinbase_tx_version,
            coinbase_prefix: template.coinbase_prefix.to_vec(),
            coinbase_tx_input_sequence: template.coinbase_tx_input_sequence,
            coinbase_tx_value_remaining: template.coinbase_tx_value_remaining,
            coinbase_tx_outputs_count: template.coinbase_tx_outputs_count,
            coinbase_tx_outputs: template.coinbase_tx_outputs.to_vec(),
            coinbase_tx_locktime: template.coinbase_tx_locktime,
            merkle_path: template.merkle_path.iter().collect(),
        })),
        Message::TemplateSetNewPrevHash(tip) => Told::Tip(Arc::new(PrevHash {
            template_id: tip.template_id,
            prev_hash: *tip.prev_hash,
            header_timestamp: tip.header_timestamp,
            nbits: tip.n_bits,
            target: Target::from_le_bytes(*tip.target),
        })),
        Message::RequestTransactionDataSuccess(success) => Told::Transactions(
            success.template_id,
            success.transaction_list.iter().map(<[u8]>::to_vec).collect(),
        ),
        Message::RequestTransactionDataError(error) => {
            Told::NoTransactions(error.template_id, String::from_utf8_lossy(error.error_code).into_owned())
        }
        other => Told::Other(other.kind().name()),
    }
}
