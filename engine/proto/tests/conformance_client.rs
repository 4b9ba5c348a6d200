//! What the specification demands of a client, where its own tests do not show it (tests/conformance says which do):
//! driven by frames, judged by frames.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use adit_codec::frame::{FrameHeader, HEADER_LEN};
use adit_codec::message::{
    Message, NewExtendedMiningJob, NewMiningJob, OpenExtendedMiningChannelSuccess, OpenMiningChannelError,
    OpenStandardMiningChannelSuccess, Protocol, RequestExtensionsError, RequestExtensionsSuccess,
    SetNewPrevHash, SetupConnectionError, SetupConnectionSuccess, SubmitSharesError, UpdateChannelError,
};
use adit_codec::seq::Seq;
use adit_codec::{Encode, encode_frame, frame_len};
use adit_hasher::{Portable, Target};
use adit_proto::Instant;
use adit_proto::mining::client::{
    BIP323_VERSION_MASK, Client, ClientConfig, ClientEvent, ClientFault, ClientLimits, ClientOutbox, Refusal,
};
use adit_proto::mining::server::{ChannelId, JobId};
use common::World;

/// A client, and the frames that it sent.
struct Downstream {
    client: Client,
    out: ClientOutbox,
    now: Instant,
}

struct Sent {
    header: FrameHeader,
    payload: Vec<u8>,
}

impl Sent {
    fn message(&self) -> Message<'_> {
        Message::decode(self.header, &self.payload, Protocol::Mining).expect("it decodes").message
    }

    fn name(&self) -> &'static str {
        self.message().kind().name()
    }
}

fn client_config(flags: u32, extensions: &[u16]) -> ClientConfig {
    ClientConfig {
        endpoint_host: b"pool.example".to_vec(),
        endpoint_port: 3333,
        vendor: b"adit".to_vec(),
        hardware_version: b"1".to_vec(),
        firmware: b"2".to_vec(),
        device_id: Vec::new(),
        flags,
        requested_extensions: extensions.to_vec(),
        limits: ClientLimits::default(),
    }
}

impl Downstream {
    fn new(flags: u32, extensions: &[u16]) -> Self {
        let client = Client::new(client_config(flags, extensions)).expect("a good configuration");
        Self { client, out: ClientOutbox::new(), now: Instant::ZERO + Duration::from_secs(5) }
    }

    /// Set up; what was sent meanwhile is dropped.
    fn ready(flags: u32, server_flags: u32) -> Self {
        let mut downstream = Self::new(flags, &[]);
        downstream.connect();
        downstream
            .receive(&SetupConnectionSuccess { used_version: 2, flags: server_flags })
            .expect("an answer");
        downstream.sent();
        downstream.events();
        downstream
    }

    fn connect(&mut self) {
        self.client.handle_connected(self.now, &mut self.out);
    }

    fn receive<M: Encode>(&mut self, message: &M) -> Result<(), ClientFault> {
        let mut frame = vec![0; frame_len(message)];
        encode_frame(message, &mut frame).expect("tests send what can be encoded");
        self.receive_frame(&frame)
    }

    fn receive_frame(&mut self, frame: &[u8]) -> Result<(), ClientFault> {
        let (header, payload) = frame.split_first_chunk::<HEADER_LEN>().expect("a header");
        self.client.handle_frame(FrameHeader::parse(header), payload, self.now, &mut self.out)
    }

    fn sent(&mut self) -> Vec<Sent> {
        let frames = self.out.frames().map(|(_, _, frame)| {
            let (header, payload) = frame.split_first_chunk::<HEADER_LEN>().expect("a header");
            Sent { header: FrameHeader::parse(header), payload: payload.to_vec() }
        });
        let frames = frames.collect();
        self.out.clear_frames();
        frames
    }

    fn events(&mut self) -> Vec<ClientEvent> {
        self.out.drain_events().collect()
    }

    fn open_standard(&mut self) -> Result<u32, Refusal> {
        let request = self.client.open_standard(b"u", 1.5, Target::MAX, self.now, &mut self.out);
        request.map(|request| request.0)
    }

    fn open_extended(&mut self) -> Result<u32, Refusal> {
        let request = self.client.open_extended(b"u", 1.5, Target::MAX, 6, self.now, &mut self.out);
        request.map(|request| request.0)
    }

    /// Channel 64, standard, and channel 65, extended, in groups of their own; each with job 1 of this version.
    fn with_channels(&mut self, version: u32, version_rolling_allowed: bool) {
        let request_id = self.open_standard().expect("it may be opened");
        let opened = OpenStandardMiningChannelSuccess {
            request_id,
            channel_id: 64,
            target: &[0xff; 32],
            extranonce_prefix: &[4; 8],
            group_channel_id: 8,
        };
        self.receive(&opened).expect("an answer");
        let request_id = self.open_extended().expect("it may be opened");
        let opened = OpenExtendedMiningChannelSuccess {
            request_id,
            channel_id: 65,
            target: &[0xff; 32],
            extranonce_size: 6,
            extranonce_prefix: &[5; 8],
            group_channel_id: 14,
        };
        self.receive(&opened).expect("an answer");
        self.standard_job(1, version);
        self.extended_job(1, version, version_rolling_allowed);
        for channel_id in [64, 65] {
            let tip =
                SetNewPrevHash { channel_id, job_id: 1, prev_hash: &[9; 32], min_ntime: 1_000, nbits: 1 };
            self.receive(&tip).expect("a tip");
        }
        self.sent();
        self.events();
    }

    fn standard_job(&mut self, job_id: u32, version: u32) {
        let job = NewMiningJob { channel_id: 64, job_id, min_ntime: None, version, merkle_root: &[3; 32] };
        self.receive(&job).expect("a job");
    }

    fn extended_job(&mut self, job_id: u32, version: u32, version_rolling_allowed: bool) {
        let job = NewExtendedMiningJob {
            channel_id: 65,
            job_id,
            min_ntime: None,
            version,
            version_rolling_allowed,
            merkle_path: Seq::EMPTY,
            coinbase_tx_prefix: &[1; 60],
            coinbase_tx_suffix: &[2; 40],
        };
        self.receive(&job).expect("a job");
    }

    fn submit_standard(&mut self, version: u32) -> Result<u32, Refusal> {
        let (channel, job) = (ChannelId(64), JobId(1));
        self.client.submit_standard(channel, job, 7, 1_000, version, self.now, &mut self.out)
    }

    fn submit_extended(&mut self, version: u32, worker: Option<&[u8]>) -> Result<u32, Refusal> {
        let (channel, job, now) = (ChannelId(65), JobId(1), self.now);
        self.client.submit_extended(channel, job, 7, 1_000, version, &[6; 6], worker, now, &mut self.out)
    }
}

fn negotiated() -> Downstream {
    let mut downstream = Downstream::new(0, &[2]);
    downstream.connect();
    downstream.receive(&SetupConnectionSuccess { used_version: 2, flags: 0 }).expect("an answer");
    let request_id = asked(&downstream.sent());
    let supported = [2];
    let answer = RequestExtensionsSuccess { request_id, supported_extensions: supported[..].into() };
    downstream.receive(&answer).expect("an answer");
    downstream
}

/// The id of the RequestExtensions that was sent last.
fn asked(sent: &[Sent]) -> u16 {
    match sent.last().expect("something was sent").message() {
        Message::RequestExtensions(request) => request.request_id,
        other => panic!("{other:?}"),
    }
}

/// 3.6.1.
#[test]
fn nothing_precedes_setup_connection() {
    let mut downstream = Downstream::new(0, &[2]);
    for connected in [false, true] {
        if connected {
            downstream.connect();
            let sent = downstream.sent();
            assert_eq!(sent.iter().map(Sent::name).collect::<Vec<_>>(), ["SetupConnection"]);
        }
        assert_eq!(downstream.open_standard(), Err(Refusal::NotReady));
        assert_eq!(downstream.open_extended(), Err(Refusal::NotReady));
        assert!(downstream.submit_standard(0).is_err() && downstream.submit_extended(0, None).is_err());
        assert!(downstream.client.close_channel(ChannelId(64), b"", &mut downstream.out).is_err());
        assert!(
            downstream.client.update_channel(ChannelId(64), 1.0, Target::MAX, &mut downstream.out).is_err()
        );
        assert!(downstream.sent().is_empty());
    }
}

/// 3.2, 3.4.1, extension 0x0001 chapter 3: numbers as the specification's lists have them, written here by hand.
#[test]
fn frames_name_the_extension_that_defined_them() {
    const NUMBERS: [(&str, u16, bool, u8); 8] = [
        ("SetupConnection", 0, false, 0x00),
        ("RequestExtensions", 1, false, 0x00),
        ("OpenStandardMiningChannel", 0, false, 0x10),
        ("OpenExtendedMiningChannel", 0, false, 0x13),
        ("SubmitSharesStandard", 0, true, 0x1a),
        ("SubmitSharesExtended", 0, true, 0x1b),
        ("UpdateChannel", 0, true, 0x16),
        ("CloseChannel", 0, true, 0x18),
    ];
    let mut downstream = Downstream::new(0, &[2]);
    downstream.connect();
    downstream.receive(&SetupConnectionSuccess { used_version: 2, flags: 0 }).expect("an answer");
    let mut sent = downstream.sent();
    let mut downstream = negotiated();
    downstream.open_standard().expect("it is ready");
    downstream.open_extended().expect("it is ready");
    sent.extend(downstream.sent());
    let mut downstream = negotiated();
    downstream.with_channels(0x2000_0000, true);
    downstream.submit_standard(0x2000_0000).expect("a good share");
    downstream.submit_extended(0x2000_0000, Some(b"worker")).expect("a good share");
    downstream.client.update_channel(ChannelId(64), 1.0, Target::MAX, &mut downstream.out).expect("open");
    downstream.client.close_channel(ChannelId(64), b"bye", &mut downstream.out).expect("open");
    sent.extend(downstream.sent());
    let found: Vec<_> = sent
        .iter()
        .map(|sent| (sent.name(), sent.header.extension_type, sent.header.channel_msg, sent.header.msg_type))
        .collect();
    assert_eq!(found, NUMBERS);
}

/// Extension 0x0001, 1.1 and 4; 3.4.2.
#[test]
fn extensions_are_asked_for_first_and_used_once_confirmed() {
    let mut downstream = Downstream::new(0, &[2, 7]);
    downstream.connect();
    assert_eq!(downstream.sent().len(), 1, "nothing but SetupConnection before the answer");
    downstream.receive(&SetupConnectionSuccess { used_version: 2, flags: 0 }).expect("an answer");
    let sent = downstream.sent();
    assert_eq!(sent.iter().map(Sent::name).collect::<Vec<_>>(), ["RequestExtensions"]);
    let Message::RequestExtensions(request) = sent[0].message() else { panic!("another message") };
    assert_eq!(request.requested_extensions.iter().collect::<Vec<_>>(), [2, 7]);
    assert_eq!(downstream.open_standard(), Err(Refusal::NotReady));
    assert_eq!(downstream.open_extended(), Err(Refusal::NotReady));
    assert!(downstream.sent().is_empty());
    // Confirmed is what the answer lists: not 0x0002.
    let supported = [7];
    let answer = RequestExtensionsSuccess {
        request_id: request.request_id,
        supported_extensions: supported[..].into(),
    };
    downstream.receive(&answer).expect("an answer");
    downstream.with_channels(0x2000_0000, true);
    downstream.submit_extended(0x2000_0000, Some(b"worker")).expect("a good share");
    assert_eq!(downstream.sent()[0].payload.len(), 24 + 1 + 6, "no field");

    // Nothing wanted, nothing asked.
    let mut downstream = Downstream::new(0, &[]);
    downstream.connect();
    downstream.receive(&SetupConnectionSuccess { used_version: 2, flags: 0 }).expect("an answer");
    assert_eq!(downstream.sent().len(), 1);
    downstream.open_standard().expect("it is ready");

    // Refused: it goes on without.
    let mut downstream = Downstream::new(0, &[2]);
    downstream.connect();
    downstream.receive(&SetupConnectionSuccess { used_version: 2, flags: 0 }).expect("an answer");
    let request_id = asked(&downstream.sent());
    let unsupported = [2];
    let answer = RequestExtensionsError {
        request_id,
        unsupported_extensions: unsupported[..].into(),
        required_extensions: Seq::EMPTY,
    };
    downstream.receive(&answer).expect("an answer");
    downstream.with_channels(0x2000_0000, true);
    downstream.submit_extended(0x2000_0000, Some(b"worker")).expect("a good share");
    assert_eq!(downstream.sent()[0].payload.len(), 24 + 1 + 6, "no field");
}

/// Extension 0x0002, 1.1 to 1.3; 3.4.3. One field of one extension is all that there is to put into order.
#[test]
fn a_share_ends_with_one_field() {
    let mut downstream = negotiated();
    downstream.with_channels(0x2000_0000, true);
    let body_len = 24 + 1 + 6;
    for len in 0..=32_u8 {
        let name = vec![b'a' + len % 26; usize::from(len)];
        downstream.submit_extended(0x2000_0000, Some(&name)).expect("a good share");
        let sent = downstream.sent();
        assert_eq!(sent.len(), 1);
        let field = [&[2, 0, 1, len, 0][..], &name].concat();
        assert_eq!(
            sent[0].payload[body_len..],
            field,
            "little-endian, as long as the name, and nothing behind"
        );
    }
    downstream.submit_extended(0x2000_0000, None).expect("a good share");
    assert_eq!(downstream.sent()[0].payload[body_len..], [2, 0, 1, 0, 0], "every share has it");
    assert_eq!(downstream.submit_extended(0x2000_0000, Some(&[b'w'; 33])), Err(Refusal::TextTooLong));
    downstream.submit_standard(0x2000_0000).expect("a good share");
    assert_eq!(downstream.sent()[0].payload.len(), 24, "of extended shares only");

    let mut downstream = Downstream::ready(0, 0);
    downstream.with_channels(0x2000_0000, true);
    downstream.submit_extended(0x2000_0000, Some(b"worker")).expect("a good share");
    assert_eq!(downstream.sent()[0].payload.len(), body_len);
}

/// 3.5: codes nobody has heard of, also of bytes that no code may have, are reported, and no more.
#[test]
fn unknown_error_codes_change_nothing() {
    for code in [&b""[..], b"no-such-code", b"\x1b[2J\0", &[0xff; 255]] {
        let mut downstream = Downstream::ready(0, 0);
        downstream.with_channels(0x2000_0000, true);
        // The codec sends no control characters, so they are put in afterwards.
        let stand_in = vec![b'x'; code.len()];
        let receive = |downstream: &mut Downstream, frame: Vec<u8>| {
            let mut frame = frame;
            let at = frame.len() - code.len();
            frame[at..].copy_from_slice(code);
            downstream.receive_frame(&frame).expect("an error is no fault");
        };
        let opening = downstream.open_standard().expect("it is ready");
        let share = downstream.submit_standard(0x2000_0000).expect("a good share");
        downstream.sent();
        receive(
            &mut downstream,
            encode(&OpenMiningChannelError { request_id: opening, error_code: &stand_in }),
        );
        receive(&mut downstream, encode(&UpdateChannelError { channel_id: 65, error_code: &stand_in }));
        let error = SubmitSharesError { channel_id: 64, sequence_number: share, error_code: &stand_in };
        receive(&mut downstream, encode(&error));
        let events = downstream.events();
        assert!(
            matches!(
                events[..],
                [
                    ClientEvent::OpenRefused { .. },
                    ClientEvent::UpdateRefused { .. },
                    ClientEvent::ShareRejected { .. }
                ]
            ),
            "{events:?}"
        );
        assert!(downstream.sent().is_empty(), "nothing is answered");
        // All else is as it was.
        assert_eq!(downstream.client.channels().count(), 2);
        for channel in [64, 65] {
            let work = downstream.client.work(ChannelId(channel), &Portable).expect("work");
            assert_eq!(work.job_id, JobId(1));
        }
        downstream.submit_standard(0x2000_0000).expect("it goes on");
        downstream.submit_extended(0x2000_0000, None).expect("it goes on");
        downstream.open_standard().expect("it goes on");
    }
}

fn encode<M: Encode>(message: &M) -> Vec<u8> {
    let mut frame = vec![0; frame_len(message)];
    encode_frame(message, &mut frame).expect("tests send what can be encoded");
    frame
}

/// 3.6.3, both sides: the answer to every flag is every flag that is not supported, and asking without them succeeds.
#[test]
fn asking_with_every_flag_tells_what_a_server_supports() {
    for version_rolling in [true, false] {
        let mut world =
            World::new(adit_proto::mining::server::ServerConfig { version_rolling, ..common::config() });
        let mut converse = |flags: u32| {
            let mut downstream = Downstream::new(flags, &[]);
            downstream.connect();
            let sent = downstream.sent();
            let id = world.server.handle_connect(world.now);
            world.send_raw(id, sent[0].header, &sent[0].payload);
            for frame in world.take() {
                match frame.message() {
                    Message::SetupConnectionSuccess(m) => downstream.receive(&m).expect("an answer"),
                    Message::SetupConnectionError(m) => {
                        let SetupConnectionError { flags, error_code } = m;
                        downstream.receive(&SetupConnectionError { flags, error_code }).expect("an answer");
                    }
                    other => panic!("{other:?}"),
                }
            }
            downstream.events().remove(0)
        };
        let ClientEvent::SetupRefused { flags, .. } = converse(u32::MAX) else { panic!("it cannot do all") };
        assert_eq!(!flags, if version_rolling { 0b101 } else { 0b001 });
        let accepted = converse(!flags);
        assert!(matches!(accepted, ClientEvent::SetUp { used_version: 2, .. }), "{accepted:?}");
        for bit in (0..32).map(|bit| 1 << bit).filter(|bit| flags & bit != 0) {
            let ClientEvent::SetupRefused { flags: refused, .. } = converse(bit) else {
                panic!("{bit:#x} was said not to be supported")
            };
            assert_eq!(refused & bit, bit);
        }
    }
}

/// 5.3.2.
#[test]
fn request_ids_are_unique_on_a_connection() {
    let mut downstream = Downstream::ready(0, 0);
    let mut ids = BTreeSet::new();
    for round in 0..400 {
        let request_id = if round % 2 == 0 { downstream.open_standard() } else { downstream.open_extended() };
        let request_id = request_id.expect("there is room");
        let sent = downstream.sent();
        let on_the_wire = match sent[0].message() {
            Message::OpenStandardMiningChannel(m) => m.request_id,
            Message::OpenExtendedMiningChannel(m) => m.request_id,
            other => panic!("{other:?}"),
        };
        assert_eq!(on_the_wire, request_id);
        assert!(ids.insert(on_the_wire), "also after answers");
        if round % 3 == 0 {
            downstream.receive(&OpenMiningChannelError { request_id, error_code: b"no" }).expect("an answer");
        }
    }
}

/// 5.3.9: the one reason that the client gives by itself.
#[test]
fn reasons_of_our_own_are_printable() {
    let mut downstream = Downstream::ready(0, 0);
    let request_id = downstream.open_standard().expect("it is ready");
    downstream.sent();
    let due = downstream.client.poll_timeout().expect("an answer is awaited");
    downstream.client.handle_timeout(due, &mut downstream.out).expect("no fault");
    let opened = OpenStandardMiningChannelSuccess {
        request_id,
        channel_id: 64,
        target: &[1; 32],
        extranonce_prefix: &[4; 8],
        group_channel_id: 8,
    };
    downstream.receive(&opened).expect("an answer, if late");
    let sent = downstream.sent();
    let Message::CloseChannel(close) = sent[0].message() else { panic!("{}", sent[0].name()) };
    assert!(!close.reason_code.is_empty() && close.reason_code.iter().all(u8::is_ascii_graphic));
}

/// 5.3.15, 5.3.16: a pool may set the bits that downstream is free to change as it likes.
#[test]
fn free_version_bits_may_come_in_any_state() {
    let fixed = 0x2000_0000;
    for free in [0, BIP323_VERSION_MASK, 0x0aaa_aaa0, 0x1555_5540] {
        let mut downstream = Downstream::ready(0, 0);
        downstream.with_channels(fixed | free, true);
        for rolled in [free, 0, BIP323_VERSION_MASK, free ^ BIP323_VERSION_MASK, 0x20] {
            downstream.submit_standard(fixed | rolled).expect("free bits");
            downstream.submit_extended(fixed | rolled, None).expect("free bits");
            for sent in downstream.sent() {
                let version = match sent.message() {
                    Message::SubmitSharesStandard(share) => share.version,
                    Message::SubmitSharesExtended(share) => share.version,
                    other => panic!("{other:?}"),
                };
                assert_eq!(version, fixed | rolled);
            }
        }
        assert_eq!(downstream.submit_standard((fixed | free) ^ 1), Err(Refusal::VersionBits));
    }
}

/// 5.3.16, although the server said nothing of the sort for the connection.
#[test]
fn a_job_that_fixes_its_version_is_obeyed() {
    let version = 0x2000_0040;
    let mut downstream = Downstream::ready(0, 0);
    downstream.with_channels(version, false);
    assert!(!downstream.client.work(ChannelId(65), &Portable).expect("work").version_rolling_allowed);
    for other in [version ^ 0x20, version ^ 0x40, version | BIP323_VERSION_MASK, 0x2000_0000] {
        assert_eq!(downstream.submit_extended(other, None), Err(Refusal::VersionBits));
    }
    assert!(downstream.sent().is_empty());
    downstream.submit_extended(version, None).expect("as it came");
}
