//! What the settings of template sources come to: names, and where Bitcoin Core puts things by default.

use std::path::PathBuf;
use std::time::Duration;

use adit_codec::url::{ServerUrl, UrlError};

use super::{Chain, Settings, SourceKind, TemplateSourceSettings};

/// Where the embedded node keeps its chain by default.
const EMBEDDED_DIR: &str = "node";

impl Chain {
    /// The directory below its data directory in which Bitcoin Core keeps this chain; empty for the data directory itself.
    const fn core_dir(self) -> &'static str {
        match self {
            Self::Main => "",
            Self::Testnet4 => "testnet4",
            Self::Signet => "signet",
            Self::Regtest => "regtest",
        }
    }

    /// The port on which Bitcoin Core's JSON-RPC server listens by default.
    const fn rpc_port(self) -> u16 {
        match self {
            Self::Main => 8_332,
            Self::Testnet4 => 48_332,
            Self::Signet => 38_332,
            Self::Regtest => 18_443,
        }
    }
}

impl Settings {
    /// The chain that is mined: the first template source's.
    pub fn chain(&self) -> Chain {
        self.template_source.first().map_or(Chain::Regtest, |source| source.chain)
    }

    /// What the log calls each template source: its name, or else its kind, with its number among several of one kind.
    pub fn source_names(&self) -> Vec<String> {
        let of_kind = |kind| self.template_source.iter().filter(move |source| source.kind == kind).count();
        let name = |(number, source): (usize, &TemplateSourceSettings)| match &source.name {
            Some(name) => name.clone(),
            None if of_kind(source.kind) == 1 => source.kind.to_string(),
            None => format!("{} {}", source.kind, number + 1),
        };
        self.template_source.iter().enumerate().map(name).collect()
    }
}

impl TemplateSourceSettings {
    /// The least time between two templates for one tip.
    pub fn template_interval(&self) -> Duration {
        let default = if self.kind == SourceKind::Embedded { 1.0 } else { 30.0 };
        Duration::from_secs_f64(self.template_interval_s.unwrap_or(default))
    }

    /// Where the embedded node keeps its chain.
    pub fn embedded_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| PathBuf::from(EMBEDDED_DIR))
    }

    /// Where Bitcoin Core keeps this chain; none where neither `data_dir` nor HOME says.
    pub fn core_dir(&self) -> Option<PathBuf> {
        let data_dir = self.data_dir.clone();
        let data_dir =
            data_dir.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".bitcoin")))?;
        Some(data_dir.join(self.chain.core_dir()))
    }

    /// Bitcoin Core's socket, for `core-ipc`; none where nothing says where it is.
    pub fn socket_path(&self) -> Option<PathBuf> {
        self.socket.clone().or_else(|| self.core_dir().map(|directory| directory.join("node.sock")))
    }

    /// Bitcoin Core's cookie, for `core-rpc` without user and password; none where nothing says where it is.
    pub fn cookie_path(&self) -> Option<PathBuf> {
        self.cookie_file.clone().or_else(|| self.core_dir().map(|directory| directory.join(".cookie")))
    }

    /// `host:port` of Bitcoin Core's JSON-RPC server, for `core-rpc`.
    pub fn rpc_address(&self) -> String {
        self.address.clone().unwrap_or_else(|| format!("127.0.0.1:{}", self.chain.rpc_port()))
    }

    /// The template provider, for `sv2`.
    ///
    /// # Errors
    /// What is wrong with `url`.
    pub fn provider(&self) -> Result<ServerUrl, UrlError> {
        self.url.as_deref().unwrap_or_default().parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(kind: SourceKind, chain: Chain) -> TemplateSourceSettings {
        TemplateSourceSettings { kind, chain, ..TemplateSourceSettings::default() }
    }

    #[test]
    fn names_are_kinds_with_numbers_where_one_is_not_enough() {
        let kinds = [SourceKind::CoreIpc, SourceKind::CoreRpc, SourceKind::CoreRpc, SourceKind::Sv2];
        let mut template_source: Vec<_> = kinds.map(|kind| source(kind, Chain::Main)).into();
        template_source[3].name = Some("remote".to_owned());
        let settings = Settings { template_source, ..Settings::default() };
        assert_eq!(settings.source_names(), ["core-ipc", "core-rpc 2", "core-rpc 3", "remote"]);
    }

    #[test]
    fn bitcoin_core_is_looked_for_where_it_is_by_default() {
        for (chain, address, below) in [
            (Chain::Main, "127.0.0.1:8332", "/core/.cookie"),
            (Chain::Testnet4, "127.0.0.1:48332", "/core/testnet4/.cookie"),
            (Chain::Signet, "127.0.0.1:38332", "/core/signet/.cookie"),
            (Chain::Regtest, "127.0.0.1:18443", "/core/regtest/.cookie"),
        ] {
            let mut source = source(SourceKind::CoreRpc, chain);
            source.data_dir = Some("/core".into());
            assert_eq!((source.rpc_address().as_str(), source.cookie_path()), (address, Some(below.into())));
        }
        let mut source = source(SourceKind::CoreIpc, Chain::Main);
        source.data_dir = Some("/core".into());
        assert_eq!(source.socket_path(), Some("/core/node.sock".into()));
    }
}
