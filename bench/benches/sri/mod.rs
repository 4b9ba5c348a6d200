//! The reference implementation's side: its crates called for a share and for work as its pool 0.7.0 calls them, without that
//! pool's tasks, queues, locks and log lines, and without the copies that it makes for them.

#![allow(dead_code, unreachable_pub, reason = "each bench needs a part")]

use std::time::Duration;

use adit_bench::detached::NTIME;
use adit_bench::plain::{EXTRANONCE_LEN, frame};
use adit_codec::frame::HEADER_LEN;
use adit_codec::keys::AuthoritySecretKey;
use adit_codec::message::{SubmitSharesExtended, SubmitSharesStandard};
use adit_codec::noise::{EphemeralKey, Initiator, Transport};
use bitcoin::{Amount, ScriptBuf, Target, TxOut};
use channels_sv2::extranonce_manager::allocator::ExtranonceAllocator;
use channels_sv2::server::extended::ExtendedChannel;
use channels_sv2::server::group::GroupChannel;
use channels_sv2::server::share_accounting::ShareValidationResult;
use channels_sv2::server::standard::StandardChannel;
use codec_sv2::{
    Decrypted, Handshake, NoiseDecoder, NoiseEncoder, TransportDecryptState, TransportEncryptState,
};
use framing_sv2::framing::MessageFrame;
use mining_sv2::{SetNewPrevHashOwned as MiningSetNewPrevHash, SubmitSharesSuccessOwned};
use parsers_sv2::{Mining, MiningOwned};
use template_distribution_sv2::{NewTemplateOwned, SetNewPrevHashOwned};

/// What nothing here meets.
const NBITS: u32 = 0x1703_4219;
const VERSION: u32 = 0x2000_0000;
/// Prefix and what a client rolls, as on our side.
const FULL_EXTRANONCE_LEN: u8 = 16;
const GROUP_ID: u32 = 1;
const CHANNEL_ID: u32 = 2;
/// Each share is answered, as on our side, where a channel sends one per tick.
const SHARE_BATCH_LEN: usize = 1;
/// High enough for any number of shares that a bench sends on one tip.
const SHARES_PER_MINUTE: f32 = 1e9;

/// A template of so many levels of merkle path, and its tip.
pub fn work(template_id: u64, depth: usize) -> (NewTemplateOwned, SetNewPrevHashOwned) {
    let template = NewTemplateOwned {
        template_id,
        future_template: true,
        version: VERSION,
        coinbase_tx_version: 2,
        coinbase_prefix: vec![3, 1, 2, 3].try_into().expect("short"),
        coinbase_tx_input_sequence: u32::MAX,
        coinbase_tx_value_remaining: 312_500_000,
        coinbase_tx_outputs_count: 0,
        coinbase_tx_outputs: Vec::new().try_into().expect("short"),
        coinbase_tx_locktime: 0,
        merkle_path: vec![[5; 32].into(); depth].try_into().expect("short"),
    };
    let tip = SetNewPrevHashOwned {
        template_id,
        prev_hash: [template_id as u8; 32].into(),
        header_timestamp: NTIME,
        n_bits: NBITS,
        target: [0; 32].into(),
    };
    (template, tip)
}

fn outputs() -> Vec<TxOut> {
    vec![TxOut { value: Amount::from_sat(312_500_000), script_pubkey: ScriptBuf::from_bytes(vec![0x51]) }]
}

/// Hands out extranonce prefixes of the same size as ours.
pub fn allocator() -> ExtranonceAllocator {
    for prefix_len in 0..=usize::from(FULL_EXTRANONCE_LEN) {
        let allocator = ExtranonceAllocator::new(vec![0; prefix_len], FULL_EXTRANONCE_LEN, 1 << 16);
        let allocator = allocator.expect("a short prefix");
        if usize::from(allocator.rollable_extranonce_size()) == EXTRANONCE_LEN {
            return allocator;
        }
    }
    panic!("some prefix leaves {EXTRANONCE_LEN} bytes");
}

enum Channel {
    Standard(Box<StandardChannel>),
    Extended(Box<ExtendedChannel>),
}

/// A connection of their pool with one channel: a group channel of its own, as their pool has it.
pub struct Downstream {
    group: GroupChannel,
    channel: Channel,
    requires_standard_jobs: bool,
    job_id: u32,
}

impl Downstream {
    /// A channel whose target every hash meets.
    pub fn new(allocator: &mut ExtranonceAllocator, requires_standard_jobs: bool, is_extended: bool) -> Self {
        let target = Target::from_le_bytes([0xff; 32]);
        let full_len = usize::from(FULL_EXTRANONCE_LEN);
        let mut group =
            GroupChannel::new_for_pool(GROUP_ID, full_len, true, "adit".into()).expect("a short tag");
        group.add_channel_id(CHANNEL_ID, full_len).expect("the group's size");
        let channel = if is_extended {
            let prefix = allocator.allocate_extended(EXTRANONCE_LEN).expect("prefixes are left");
            let channel = ExtendedChannel::new_for_pool(
                CHANNEL_ID,
                "bench".into(),
                prefix,
                target,
                1.0,
                true,
                EXTRANONCE_LEN as u16,
                SHARE_BATCH_LEN,
                SHARES_PER_MINUTE,
                "adit".into(),
                None,
            );
            let mut channel = channel.expect("sound parameters");
            channel.set_target(target).expect("not zero");
            Channel::Extended(channel.into())
        } else {
            let prefix = allocator.allocate_standard().expect("prefixes are left");
            let channel = StandardChannel::new_for_pool(
                CHANNEL_ID,
                "bench".into(),
                prefix,
                target,
                1.0,
                SHARE_BATCH_LEN,
                SHARES_PER_MINUTE,
                "adit".into(),
                None,
            );
            let mut channel = channel.expect("sound parameters");
            channel.set_target(target).expect("not zero");
            Channel::Standard(channel.into())
        };
        Self { group, channel, requires_standard_jobs, job_id: 0 }
    }

    /// As their pool's handlers of NewTemplate and of SetNewPrevHash: the two messages for this connection.
    pub fn take_work(
        &mut self,
        template: &NewTemplateOwned,
        tip: &SetNewPrevHashOwned,
    ) -> [MessageFrame<MiningOwned>; 2] {
        let template_id = template.template_id;
        self.group.on_new_template(template.clone(), outputs()).expect("a good template");
        let group_job = self
            .group
            .get_future_job_id_from_template_id(template_id)
            .and_then(|id| self.group.get_future_job(id))
            .expect("the job of the template");
        let job = match &mut self.channel {
            Channel::Standard(channel) if self.requires_standard_jobs => {
                channel.on_new_template(template.clone(), outputs()).expect("a good template");
                let job = channel
                    .get_future_job_id_from_template_id(template_id)
                    .and_then(|id| channel.get_future_job(id))
                    .expect("the job of the template");
                MiningOwned::NewMiningJob(job.get_job_message().clone())
            }
            Channel::Standard(channel) => {
                channel.on_group_channel_job(group_job.clone()).expect("the group's job");
                MiningOwned::NewExtendedMiningJob(group_job.get_job_message().clone())
            }
            Channel::Extended(channel) => {
                channel.on_group_channel_job(group_job.clone()).expect("the group's job");
                MiningOwned::NewExtendedMiningJob(group_job.get_job_message().clone())
            }
        };
        self.group.on_set_new_prev_hash(tip.clone()).expect("the template's tip");
        self.job_id = match &mut self.channel {
            Channel::Standard(channel) => {
                channel.on_set_new_prev_hash(tip.clone()).expect("the template's tip");
                channel.get_active_job().expect("the tip's job").get_job_id()
            }
            Channel::Extended(channel) => {
                channel.on_set_new_prev_hash(tip.clone()).expect("the template's tip");
                channel.get_active_job().expect("the tip's job").get_job_id()
            }
        };
        let prev_hash = MiningOwned::SetNewPrevHash(MiningSetNewPrevHash {
            channel_id: if self.requires_standard_jobs { CHANNEL_ID } else { GROUP_ID },
            job_id: self.job_id,
            prev_hash: tip.prev_hash.clone(),
            min_ntime: tip.header_timestamp,
            nbits: tip.n_bits,
        });
        [job, prev_hash].map(|message| MessageFrame::try_from(message).expect("a short message"))
    }

    /// As their pool's handlers of shares: parsed, validated, answered.
    pub fn receive(&mut self, msg_type: u8, payload: &mut [u8]) -> MessageFrame<MiningOwned> {
        let share = Mining::try_from((msg_type, payload)).expect("a sound share").into_owned();
        let (result, accounting) = match (share, &mut self.channel) {
            (MiningOwned::SubmitSharesStandard(share), Channel::Standard(channel)) => {
                (channel.validate_share(share), channel.get_share_accounting())
            }
            (MiningOwned::SubmitSharesExtended(share), Channel::Extended(channel)) => {
                (channel.validate_share(share), channel.get_share_accounting())
            }
            _ => panic!("a share for the channel"),
        };
        assert!(matches!(result, Ok(ShareValidationResult::Valid(_))), "a good share");
        assert!(accounting.should_acknowledge());
        let success = SubmitSharesSuccessOwned {
            channel_id: CHANNEL_ID,
            last_sequence_number: accounting.get_last_share_sequence_number(),
            new_submits_accepted_count: accounting.get_last_batch_accepted(),
            new_shares_sum: accounting.get_last_batch_work_sum(),
        };
        MessageFrame::try_from(MiningOwned::SubmitSharesSuccess(success)).expect("a short message")
    }

    /// A share that no other number gives, as a frame.
    pub fn share(&self, number: u32) -> Vec<u8> {
        if let Channel::Standard(_) = self.channel {
            return frame(&SubmitSharesStandard {
                channel_id: CHANNEL_ID,
                sequence_number: number,
                job_id: self.job_id,
                nonce: number,
                ntime: NTIME,
                version: VERSION,
            });
        }
        let mut extranonce = [0; EXTRANONCE_LEN];
        extranonce[..4].copy_from_slice(&number.to_le_bytes());
        frame(&SubmitSharesExtended {
            channel_id: CHANNEL_ID,
            sequence_number: number,
            job_id: self.job_id,
            nonce: number,
            ntime: NTIME,
            version: VERSION,
            extranonce: &extranonce,
        })
    }
}

/// Their end of an encrypted connection, and ours as its client.
pub struct Session {
    pub client: Transport,
    encrypt: TransportEncryptState,
    decrypt: Option<TransportDecryptState>,
    encoder: NoiseEncoder,
    decoder: NoiseDecoder,
}

impl Session {
    /// A session that is past its handshake.
    pub fn new(number: u32) -> Self {
        const AUTHORITY_SECRET: [u8; 32] = [7; 32];
        let authority = AuthoritySecretKey::from_bytes(&AUTHORITY_SECRET).expect("a valid secret");
        let public = authority.public_key().to_bytes();
        let responder =
            noise_sv2::Responder::from_authority_kp(&public, &AUTHORITY_SECRET, Duration::from_secs(3_600));
        let mut random = [0x41; 64];
        random[..4].copy_from_slice(&number.to_le_bytes());
        let (initiator, act1) = Initiator::new(EphemeralKey::new(&random).expect("a valid secret"));
        let (act2, theirs) =
            Handshake::responder(responder.expect("a valid pair")).step_1(act1).expect("a handshake");
        let act2 = act2.payload().try_into().expect("act 2's length");
        let client = initiator.finish(&act2, None, 0, 0).expect("a handshake");
        let (encrypt, decrypt) = theirs.split();
        Self {
            client,
            encrypt,
            decrypt: Some(decrypt),
            encoder: NoiseEncoder::new(),
            decoder: NoiseDecoder::new(),
        }
    }

    /// Received bytes, which hold whole frames: each frame's type and payload.
    pub fn receive(&mut self, mut bytes: &[u8], mut take: impl FnMut(u8, &mut [u8])) {
        while !bytes.is_empty() {
            let room = self.decoder.writable();
            let (taken, rest) = bytes.split_at(room.len());
            room.copy_from_slice(taken);
            bytes = rest;
            let state = self.decrypt.take().expect("the state comes back");
            self.decrypt = Some(match self.decoder.next_transport_frame(state).expect("untouched frames") {
                Decrypted::Frame(mut frame, state) => {
                    let msg_type = frame.header().msg_type();
                    take(msg_type, frame.payload());
                    state
                }
                Decrypted::Incomplete(_, state) => state,
            });
        }
    }

    /// A frame, encoded and sealed.
    pub fn send(&mut self, frame: MessageFrame<MiningOwned>) -> impl AsRef<[u8]> + use<> {
        self.encoder.encode_transport(frame, &mut self.encrypt).expect("room and nonces")
    }
}

/// The type and the payload of a frame.
pub fn split(frame: &mut [u8]) -> (u8, &mut [u8]) {
    let (header, payload) = frame.split_first_chunk_mut::<HEADER_LEN>().expect("a frame has a header");
    (header[2], payload)
}
