//! From settings to a template source.

use std::fmt;
use std::time::Duration;

use adit_codec::url::ServerUrl;
use bitcoin::Network;

use super::TemplateSource;
use super::core_ipc::{self, CoreIpcConfig, CoreIpcSource};
use super::core_rpc::{self, CoreRpc, CoreRpcAuth, CoreRpcConfig};
use super::embedded::{self, EmbeddedConfig, EmbeddedNode, RpcAuth, RpcConfig};
use super::failover::Failover;
use super::sv2::{self, Sv2Config, Sv2Source};
use super::synthetic::{self, SyntheticConfig, SyntheticSource};
use crate::config::{Chain, Settings, SourceKind, TemplateSourceSettings};

/// Why a template source does not start; each part says what to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The embedded node.
    Embedded(embedded::StartError),
    /// The system gives no thread.
    Thread(std::io::Error),
    /// A Bitcoin Core over its mining interface.
    CoreIpc(core_ipc::StartError),
    /// A source that takes templates from another server.
    Sv2(sv2::StartError),
    /// A Bitcoin Core over JSON-RPC.
    CoreRpc(core_rpc::StartError),
    /// Work that no node is behind.
    Synthetic(synthetic::StartError),
    /// The settings name no source that this program can start.
    Unavailable,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(error) => error.fmt(f),
            Self::Thread(error) => write!(
                f,
                "template sources: the system gives no thread: {error}; raise the limit with `ulimit -u` or TasksMax="
            ),
            Self::CoreIpc(error) => error.fmt(f),
            Self::Sv2(error) => error.fmt(f),
            Self::CoreRpc(error) => error.fmt(f),
            Self::Synthetic(error) => error.fmt(f),
            Self::Unavailable => f.write_str("the settings name no template source that can be started"),
        }
    }
}

impl std::error::Error for StartError {}

/// Starts the template source that checked settings describe: one, or several as one.
///
/// # Errors
/// What did not start and what to do; nothing is left running.
pub fn start(settings: &Settings) -> Result<Box<dyn TemplateSource>, StartError> {
    let sources = settings.template_source.iter().zip(settings.source_names());
    // Those that run end when another does not start.
    let mut sources = sources.map(|(source, name)| start_one(source, name)).collect::<Result<Vec<_>, _>>()?;
    match sources.len() {
        0 => Err(StartError::Unavailable),
        1 => Ok(sources.remove(0)),
        _ => Ok(Box::new(Failover::start(sources).map_err(StartError::Thread)?)),
    }
}

fn start_one(settings: &TemplateSourceSettings, name: String) -> Result<Box<dyn TemplateSource>, StartError> {
    match settings.kind {
        SourceKind::Embedded => start_embedded(settings, name),
        SourceKind::CoreIpc => start_core_ipc(settings, name),
        SourceKind::Sv2 => start_sv2(settings, name),
        SourceKind::CoreRpc => start_core_rpc(settings, name),
        SourceKind::Synthetic => start_synthetic(settings, name),
    }
}

fn start_embedded(
    settings: &TemplateSourceSettings,
    name: String,
) -> Result<Box<dyn TemplateSource>, StartError> {
    let chain = match settings.chain {
        Chain::Regtest => embedded::Chain::Regtest,
        Chain::Signet => embedded::Chain::Signet,
        Chain::Main | Chain::Testnet4 => return Err(StartError::Unavailable),
    };
    let auth = settings.rpc_user.clone().zip(settings.rpc_password.clone());
    let rpc = settings.rpc_listen.map(|listen| RpcConfig {
        listen,
        auth: auth.map(|(user, password)| RpcAuth { user, password: password.0 }),
    });
    let config = EmbeddedConfig {
        name: Some(name),
        data_dir: Some(settings.embedded_dir()),
        template_interval: settings.template_interval(),
        fee_delta_sat: settings.fee_delta_sat,
        rpc,
        ..EmbeddedConfig::new(chain)
    };
    let node = EmbeddedNode::start(config).map_err(StartError::Embedded)?;
    Ok(Box::new(node))
}

fn start_core_ipc(
    settings: &TemplateSourceSettings,
    name: String,
) -> Result<Box<dyn TemplateSource>, StartError> {
    let network = match settings.chain {
        Chain::Main => Network::Bitcoin,
        Chain::Testnet4 => Network::Testnet4,
        Chain::Signet => Network::Signet,
        Chain::Regtest => Network::Regtest,
    };
    let socket = settings.socket_path().ok_or(StartError::Unavailable)?;
    let config = CoreIpcConfig {
        name,
        template_interval: settings.template_interval(),
        fee_delta_sat: settings.fee_delta_sat,
        ..CoreIpcConfig::new(network, socket)
    };
    let source = CoreIpcSource::start(config).map_err(StartError::CoreIpc)?;
    Ok(Box::new(source))
}

fn start_sv2(settings: &TemplateSourceSettings, name: String) -> Result<Box<dyn TemplateSource>, StartError> {
    let ServerUrl { host, port, authority } = settings.provider().map_err(|_| StartError::Unavailable)?;
    let config = Sv2Config { name: Some(name), authority, ..Sv2Config::new(host, port) };
    Ok(Box::new(Sv2Source::start(config).map_err(StartError::Sv2)?))
}

fn start_core_rpc(
    settings: &TemplateSourceSettings,
    name: String,
) -> Result<Box<dyn TemplateSource>, StartError> {
    let auth = match settings.rpc_user.clone().zip(settings.rpc_password.clone()) {
        Some((user, password)) => CoreRpcAuth::Password { user, password: password.0 },
        None => CoreRpcAuth::Cookie(settings.cookie_path().ok_or(StartError::Unavailable)?),
    };
    let config = CoreRpcConfig {
        name,
        address: settings.rpc_address(),
        auth,
        chain: settings.chain.to_string(),
        poll_interval: Duration::from_secs_f64(settings.poll_interval_s),
        template_interval: settings.template_interval(),
        fee_delta_sat: settings.fee_delta_sat,
    };
    let source = CoreRpc::start(config).map_err(StartError::CoreRpc)?;
    Ok(Box::new(source))
}

fn start_synthetic(
    settings: &TemplateSourceSettings,
    name: String,
) -> Result<Box<dyn TemplateSource>, StartError> {
    let config = SyntheticConfig {
        name,
        transactions_count: settings.transactions_count,
        template_interval: settings.template_interval(),
        tip_interval: Duration::from_secs_f64(settings.tip_interval_s),
    };
    Ok(Box::new(SyntheticSource::start(config).map_err(StartError::Synthetic)?))
}
