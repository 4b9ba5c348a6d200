//! A pool in miniature: makes coinbases and solutions from a source's reports, as the state machine does.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::new_without_default,
    reason = "tests; each program uses a part"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_hasher::{BatchHash, Digest, Hasher, HeaderBytes, Target, merkle_root_from_path};
use adit_proto::distribution::Reserve;
use adit_proto::distribution::server::ClassId;
use adit_proto::mining::server::Solution;
use adit_proto::template::{PrevHash, Template, TemplateUpdate};
use adit_roles::nodes::embedded::{Chain, EmbeddedConfig, EmbeddedNode};
use adit_roles::nodes::{SourceUpdate, Submission, TemplateSource};
use bitcoin::absolute::LockTime;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::key::{CompressedPublicKey, Secp256k1};
use bitcoin::secp256k1::{All, Message, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use crossbeam::channel::Receiver;

/// Nothing here takes longer unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A key whose P2WPKH outputs the tests spend.
pub struct Wallet {
    secp: Secp256k1<All>,
    key: SecretKey,
    public: CompressedPublicKey,
}

impl Wallet {
    pub fn new() -> Self {
        let secp = Secp256k1::new();
        let key = SecretKey::from_slice(&[0x42; 32]).unwrap();
        let public = CompressedPublicKey(key.public_key(&secp));
        Self { secp, key, public }
    }

    pub fn script(&self) -> ScriptBuf {
        ScriptBuf::new_p2wpkh(&self.public.wpubkey_hash())
    }

    /// Signs every input; `values` are the amounts that they spend.
    pub fn sign(&self, mut transaction: Transaction, values: &[u64]) -> Transaction {
        for (index, value) in values.iter().enumerate() {
            let mut cache = SighashCache::new(&transaction);
            let hash = cache
                .p2wpkh_signature_hash(index, &self.script(), Amount::from_sat(*value), EcdsaSighashType::All)
                .unwrap();
            let signature = self.secp.sign_ecdsa(&Message::from_digest(hash.to_byte_array()), &self.key);
            let signature = bitcoin::ecdsa::Signature { signature, sighash_type: EcdsaSighashType::All };
            transaction.input[index].witness = Witness::p2wpkh(&signature, &self.public.0);
        }
        transaction
    }

    /// A signed transaction from outputs of this wallet to others of it.
    pub fn spend(&self, from: &[(OutPoint, u64)], to_sat: &[u64]) -> Transaction {
        let outputs =
            to_sat.iter().map(|sat| TxOut { value: Amount::from_sat(*sat), script_pubkey: self.script() });
        let values: Vec<u64> = from.iter().map(|(_, value)| *value).collect();
        self.sign(unsigned(from, outputs.collect()), &values)
    }
}

pub fn unsigned(from: &[(OutPoint, u64)], output: Vec<TxOut>) -> Transaction {
    let input = |(place, _): &(OutPoint, u64)| TxIn {
        previous_output: *place,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: from.iter().map(input).collect(),
        output,
    }
}

/// The only class of these pools.
const CLASS: ClassId = ClassId(7);

/// What a pool knows of a source: the newest templates and the tip.
pub struct Pool<S = EmbeddedNode> {
    pub source: S,
    pub updates: Receiver<SourceUpdate>,
    pub payout: ScriptBuf,
    pub templates: Vec<Arc<Template>>,
    pub active: Option<Arc<Template>>,
    pub tip: Option<Arc<PrevHash>>,
    pub reports: Vec<SourceUpdate>,
    extranonce: u64,
}

impl Pool {
    pub fn start(config: EmbeddedConfig) -> Self {
        let mut pool = Self::on(EmbeddedNode::start(config).unwrap());
        pool.want(Reserve { reserved_weight: 8_000, max_additional_sigops: 400 });
        pool
    }

    pub fn at(chain: Chain, directory: &Path) -> Self {
        let mut config = quick_config(chain);
        config.data_dir = Some(directory.to_owned());
        Self::start(config)
    }
}

impl<S: TemplateSource> Pool<S> {
    /// Knows nothing and wants nothing yet.
    pub fn on(source: S) -> Self {
        let updates = source.updates();
        Self {
            source,
            updates,
            payout: Wallet::new().script(),
            templates: Vec::new(),
            active: None,
            tip: None,
            reports: Vec::new(),
            extranonce: 0,
        }
    }

    /// Asks for templates with this reserve, and waits for the first.
    pub fn want(&mut self, reserve: Reserve) {
        self.poll();
        self.tip = None;
        self.source.want(CLASS, reserve);
        self.wait_for(|pool| pool.tip.is_some());
    }

    /// Takes in what the source reported.
    pub fn poll(&mut self) {
        while let Ok(update) = self.updates.try_recv() {
            self.handle(update);
        }
    }

    fn handle(&mut self, update: SourceUpdate) {
        match &update {
            SourceUpdate::Template { update: TemplateUpdate::NewTemplate(template), .. } => {
                if let Some(last) = self.templates.last() {
                    assert!(template.template_id > last.template_id, "template ids rise");
                }
                self.templates.push(template.clone());
                if !template.future_template {
                    assert!(self.tip.is_some(), "an active template follows a tip");
                    self.active = Some(template.clone());
                }
            }
            SourceUpdate::Template { update: TemplateUpdate::SetNewPrevHash(tip), .. } => {
                let named = self.templates.iter().find(|template| template.template_id == tip.template_id);
                let named = named.expect("a tip activates a template that was announced");
                assert!(named.future_template);
                self.active = Some(named.clone());
                self.tip = Some(tip.clone());
            }
            _ => {}
        }
        self.reports.push(update);
    }

    #[track_caller]
    pub fn wait_for(&mut self, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        self.poll();
        while !condition(self) {
            let update = self.updates.recv_deadline(deadline).expect("a report in time");
            self.handle(update);
        }
    }

    pub fn prev_hash(&self) -> [u8; 32] {
        self.tip.as_ref().unwrap().prev_hash
    }

    pub fn height(&self) -> u32 {
        self.active.as_ref().unwrap().coinbase_tx_locktime + 1
    }

    /// A solution for the active template, found by hashing.
    pub fn solve(&mut self) -> Arc<Solution> {
        self.poll();
        let (template, tip) = (self.active.clone().unwrap(), self.tip.clone().unwrap());
        self.solve_for(&template, &tip)
    }

    pub fn solve_for(&mut self, template: &Template, tip: &PrevHash) -> Arc<Solution> {
        self.extranonce += 1;
        let coinbase =
            coinbase(template, &self.payout, template.coinbase_tx_value_remaining, self.extranonce);
        Arc::new(solve(template, tip, &coinbase))
    }

    #[track_caller]
    pub fn submit(&self, solution: Arc<Solution>) -> Submission {
        self.source.submit(solution).recv_timeout(PATIENCE).expect("an answer")
    }

    /// Mines a block on the tip, waits for the next one, and returns its coinbase's first output.
    #[track_caller]
    pub fn mine(&mut self) -> (OutPoint, u64) {
        let solution = self.solve();
        let coinbase: Transaction = deserialize(&solution.coinbase_tx).unwrap();
        let height = self.height();
        let submission = self.submit(solution.clone());
        let reward = coinbase.output[0].value.to_sat();
        let expected = Submission::Accepted { height, hash: solution.digest, reward_sat: reward };
        assert_eq!(submission, expected);
        self.wait_for(|pool| pool.prev_hash() == solution.digest.0);
        (OutPoint { txid: coinbase.compute_txid(), vout: 0 }, reward)
    }
}

/// Looks until it is so.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Templates follow transactions at once.
pub fn quick_config(chain: Chain) -> EmbeddedConfig {
    let mut config = EmbeddedConfig::new(chain);
    config.template_interval = Duration::ZERO;
    config.fee_delta_sat = 1;
    config
}

/// A coinbase as the pool lays it out: the template's prefix, a tag, the extranonce; payout first, then the template's
/// outputs.
pub fn coinbase(template: &Template, payout: &ScriptBuf, value: u64, extranonce: u64) -> Transaction {
    let mut script_sig = template.coinbase_prefix.clone();
    script_sig.extend_from_slice(b"\x04adit\x08");
    script_sig.extend_from_slice(&extranonce.to_le_bytes());
    let mut witness = Witness::new();
    witness.push([0; 32]);
    let mut output = vec![TxOut { value: Amount::from_sat(value), script_pubkey: payout.clone() }];
    let mut rest = &template.coinbase_tx_outputs[..];
    for _ in 0..template.coinbase_tx_outputs_count {
        let (next, len) = bitcoin::consensus::deserialize_partial::<TxOut>(rest).unwrap();
        output.push(next);
        rest = &rest[len..];
    }
    assert!(rest.is_empty());
    Transaction {
        version: Version(template.coinbase_tx_version as i32),
        lock_time: LockTime::from_consensus(template.coinbase_tx_locktime),
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: ScriptBuf::from_bytes(script_sig),
            sequence: Sequence(template.coinbase_tx_input_sequence),
            witness,
        }],
        output,
    }
}

/// The header over a merkle root, its nonce zero.
pub fn header(template: &Template, tip: &PrevHash, root: [u8; 32]) -> HeaderBytes {
    let mut header = [0; 80];
    header[..4].copy_from_slice(&template.version.to_le_bytes());
    header[4..36].copy_from_slice(&tip.prev_hash);
    header[36..68].copy_from_slice(&root);
    header[68..72].copy_from_slice(&tip.header_timestamp.to_le_bytes());
    header[72..76].copy_from_slice(&tip.nbits.to_le_bytes());
    header
}

/// Hashes until the header meets the tip's target; the time moves on when the nonces are used up.
pub fn work(mut header: HeaderBytes, target: &Target) -> HeaderBytes {
    loop {
        let mut found = Vec::new();
        hasher().scan_nonces(&header, 0, u32::MAX, target, &mut found, 1);
        if let Some(nonce) = found.first() {
            header[76..].copy_from_slice(&nonce.to_le_bytes());
            return header;
        }
        let time = u32::from_le_bytes(header[68..72].try_into().unwrap()) + 1;
        header[68..72].copy_from_slice(&time.to_le_bytes());
    }
}

fn hasher() -> Hasher {
    Hasher::detect()
}

/// A solution of `template` on `tip` with this coinbase.
pub fn solve(template: &Template, tip: &PrevHash, coinbase: &Transaction) -> Solution {
    let txid = coinbase.compute_txid().to_byte_array();
    let root = merkle_root_from_path(&txid, &template.merkle_path);
    let header = work(header(template, tip, root), &tip.target);
    Solution {
        template_id: template.template_id,
        header,
        digest: Digest::of(&header),
        target: tip.target,
        coinbase_tx: serialize(coinbase),
        merkle_path: template.merkle_path.clone(),
        user_identity: b"miner".to_vec(),
        worker_identity: Vec::new(),
    }
}

/// What Bitcoin Core itself says of a chain on disk that nobody uses: every block of the best chain, genesis first.
pub fn blocks_on_disk(chain: Chain, directory: &Path) -> Vec<bitcoin::Block> {
    let builder = match chain {
        Chain::Regtest => bitcoinkernel::ContextBuilder::new().chain_type(bitcoinkernel::ChainType::Regtest),
        Chain::Signet => bitcoinkernel::ContextBuilder::new().signet(&[0x51]),
    };
    let context = builder.build().unwrap();
    let data = directory.join(chain.name());
    let manager = bitcoinkernel::ChainstateManager::new(
        &context,
        data.to_str().unwrap(),
        data.join("blocks").to_str().unwrap(),
    );
    let manager = manager.unwrap();
    manager.import_blocks().unwrap();
    let entries: Vec<_> = manager.active_chain().iter().collect();
    let read = |entry| manager.read_block_data(entry).unwrap().consensus_encode().unwrap();
    entries.iter().map(|entry| deserialize(&read(entry)).unwrap()).collect()
}

pub fn txids(block: &bitcoin::Block) -> Vec<Txid> {
    block.txdata.iter().map(Transaction::compute_txid).collect()
}

/// One HTTP exchange with JSON-RPC: the status and the body.
pub fn http(address: SocketAddr, head: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: node\r\nConnection: close\r\n{head}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    // A server that refuses a large body may close before it has read all of it.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.split(' ').nth(1).expect("a status line").parse().unwrap();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, body.to_owned())
}

/// One call of JSON-RPC: the result, or code and message.
pub fn rpc(
    address: SocketAddr,
    method: &str,
    params: serde_json::Value,
) -> Result<serde_json::Value, (i64, String)> {
    let request = serde_json::json!({"jsonrpc": "1.0", "id": "test", "method": method, "params": params});
    let (status, body) = http(address, "", &request.to_string());
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["id"], "test");
    match &answer["error"] {
        serde_json::Value::Null => {
            assert_eq!(status, 200);
            Ok(answer["result"].clone())
        }
        error => {
            assert_ne!(status, 200);
            Err((error["code"].as_i64().unwrap(), error["message"].as_str().unwrap().to_owned()))
        }
    }
}
