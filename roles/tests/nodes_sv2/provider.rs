//! A template provider by script: real TCP and Noise, and whatever frames a test wants it to send.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_codec::frame::{FrameHeader, HEADER_LEN, PAYLOAD_LEN_MAX};
use adit_codec::keys::{AuthoritySecretKey, Certificate, StaticKeyPair};
use adit_codec::message::{
    Message, MessageKind, NewTemplate, SetupConnectionSuccess, TemplateSetNewPrevHash,
};
use adit_codec::noise::{ACT1_LEN, ACT2_LEN, EphemeralKey, Responder, Sealer, SecureDeframer, sealed_len};
use adit_codec::{Encode, encode_frame, frame_len};
use adit_proto::template::Template;
use ring::rand::{SecureRandom, SystemRandom};

use super::PATIENCE;

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).unwrap();
    bytes
}

pub(crate) fn unix_now() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32
}

pub(crate) fn encode<M: Encode>(message: &M) -> Vec<u8> {
    let mut frame = vec![0; frame_len(message)];
    encode_frame(message, &mut frame).unwrap();
    frame
}

pub(crate) fn decode(kind: MessageKind, payload: &[u8]) -> Message<'_> {
    Message::decode_kind(kind, payload).unwrap().message
}

/// Who a provider is.
pub(crate) struct Identity {
    pub(crate) authority: AuthoritySecretKey,
    static_key: StaticKeyPair,
    certificate: Certificate,
}

impl Identity {
    /// Vouched for by the authority with this secret, from one moment to another.
    pub(crate) fn new(secret: &[u8; 32], (valid_from, not_valid_after): (u32, u32)) -> Self {
        let authority = AuthoritySecretKey::from_bytes(secret).unwrap();
        let static_key = StaticKeyPair::new(&random()).unwrap();
        let certificate = authority.certify(static_key.public_key(), valid_from, not_valid_after, &random());
        Self { authority, static_key, certificate }
    }
}

/// Listens.
pub(crate) struct Provider {
    listener: TcpListener,
    pub(crate) identity: Identity,
}

impl Provider {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let now = unix_now();
        Self { listener, identity: Identity::new(&[7; 32], (now - 60, now + 3_600)) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    pub(crate) fn accept_tcp(&self) -> TcpStream {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    #[track_caller]
    pub(crate) fn accept(&self) -> Connection {
        self.try_accept().expect("a client shakes hands")
    }

    /// The next client that shakes hands to the end of what it says itself.
    pub(crate) fn try_accept(&self) -> Option<Connection> {
        let mut stream = self.accept_tcp();
        let (mut act1, mut act2) = ([0; ACT1_LEN], [0; ACT2_LEN]);
        stream.read_exact(&mut act1).ok()?;
        let ephemeral = EphemeralKey::new(&random()).unwrap();
        let Identity { static_key, certificate, .. } = &self.identity;
        let transport = Responder::respond(&act1, static_key, certificate, ephemeral, &mut act2);
        stream.write_all(&act2).ok()?;
        let deframer = SecureDeframer::new(transport.opener, PAYLOAD_LEN_MAX);
        Some(Connection { stream, deframer, sealer: transport.sealer, received: Vec::new() })
    }
}

/// A template of a height between 17 and 127.
pub(crate) fn template(
    template_id: u64,
    future_template: bool,
    height: u8,
    merkle_path: &[[u8; 32]],
) -> Template {
    Template {
        template_id,
        future_template,
        version: 0x2000_0000,
        coinbase_tx_version: 2,
        coinbase_prefix: vec![1, height],
        coinbase_tx_input_sequence: u32::MAX,
        coinbase_tx_value_remaining: 5_000_000_000,
        coinbase_tx_outputs_count: 0,
        coinbase_tx_outputs: Vec::new(),
        coinbase_tx_locktime: 0,
        merkle_path: merkle_path.to_vec(),
    }
}

/// A client's connection.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    deframer: SecureDeframer,
    sealer: Sealer,
    received: Vec<(FrameHeader, Vec<u8>)>,
}

impl Connection {
    fn seal(&mut self, frame: &[u8]) -> Vec<u8> {
        let mut sealed = vec![0; sealed_len(frame.len() - HEADER_LEN)];
        self.sealer.seal_frame_into(frame, &mut sealed).unwrap();
        sealed
    }

    #[track_caller]
    pub(crate) fn send(&mut self, frame: &[u8]) {
        self.try_send(&[frame]).expect("the client reads");
    }

    pub(crate) fn try_send(&mut self, frames: &[&[u8]]) -> io::Result<()> {
        let sealed: Vec<u8> = frames.iter().flat_map(|frame| self.seal(frame)).collect();
        self.stream.write_all(&sealed)
    }

    /// The first bytes of a sealed frame.
    pub(crate) fn send_part(&mut self, frame: &[u8], len: usize) {
        let sealed = self.seal(frame);
        self.stream.write_all(&sealed[..len]).unwrap();
    }

    /// Bytes that nobody sealed.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next frame; none at the end of the connection.
    pub(crate) fn try_receive(&mut self) -> Option<(MessageKind, Vec<u8>)> {
        while self.received.is_empty() {
            let mut buffer = [0; 4_096];
            let len = match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            };
            let mut input = &mut buffer[..len];
            while let Some((header, payload)) = self.deframer.next_frame(&mut input).unwrap() {
                self.received.push((header, payload.to_vec()));
            }
        }
        let (header, payload) = self.received.remove(0);
        Some((MessageKind::from_header(header).expect("a client sends what is known"), payload))
    }

    #[track_caller]
    pub(crate) fn receive(&mut self) -> (MessageKind, Vec<u8>) {
        self.try_receive().expect("a frame in time")
    }

    /// Accepts SetupConnection and takes the constraints: protocol, versions and flags of the one, size and signature
    /// operations of the other.
    #[track_caller]
    pub(crate) fn set_up(&mut self) -> ((u8, u16, u16, u32), (u32, u16)) {
        let (kind, payload) = self.receive();
        let Message::SetupConnection(setup) = decode(kind, &payload) else { panic!("{kind}") };
        let setup = (setup.protocol, setup.min_version, setup.max_version, setup.flags);
        self.send(&encode(&SetupConnectionSuccess { used_version: 2, flags: 0 }));
        let (kind, payload) = self.receive();
        let Message::CoinbaseOutputConstraints(room) = decode(kind, &payload) else { panic!("{kind}") };
        (setup, (room.coinbase_output_max_additional_size, room.coinbase_output_max_additional_sigops))
    }

    #[track_caller]
    pub(crate) fn template(&mut self, template_id: u64, future: bool, height: u8, merkle_path: &[[u8; 32]]) {
        let template = template(template_id, future, height, merkle_path);
        self.send(&encode(&NewTemplate {
            template_id,
            future_template: future,
            version: template.version,
            coinbase_tx_version: template.coinbase_tx_version,
            coinbase_prefix: &template.coinbase_prefix,
            coinbase_tx_input_sequence: template.coinbase_tx_input_sequence,
            coinbase_tx_value_remaining: template.coinbase_tx_value_remaining,
            coinbase_tx_outputs_count: template.coinbase_tx_outputs_count,
            coinbase_tx_outputs: &template.coinbase_tx_outputs,
            coinbase_tx_locktime: template.coinbase_tx_locktime,
            merkle_path: template.merkle_path.as_slice().into(),
        }));
    }

    #[track_caller]
    pub(crate) fn prev_hash(&mut self, template_id: u64, prev_hash: [u8; 32]) {
        self.send(&encode(&TemplateSetNewPrevHash {
            template_id,
            prev_hash: &prev_hash,
            header_timestamp: 1_700_000_000,
            n_bits: 0x207f_ffff,
            target: &[0x7f; 32],
        }));
    }

    /// A future template without transactions, and the tip that names it.
    #[track_caller]
    pub(crate) fn tip(&mut self, template_id: u64, height: u8, prev_hash: [u8; 32]) {
        self.template(template_id, true, height, &[]);
        self.prev_hash(template_id, prev_hash);
    }

    #[track_caller]
    pub(crate) fn expect_request(&mut self, expected: u64) {
        let (kind, payload) = self.receive();
        let message = decode(kind, &payload);
        let Message::RequestTransactionData(request) = message else { panic!("{message:?}") };
        assert_eq!(request.template_id, expected);
    }
}
