//! The pool: miners on an engine, paid by blocks of one template source.
//!
//! What it shares with the other roles, threads and their end, is the module `role`'s. Miners are served while the source is away.

mod status;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_codec::keys::AuthorityPublicKey;
use adit_engine::service::{Mining, MiningConfig};
use adit_engine::{EngineConfig, ShutdownReport};
use adit_proto::distribution::server::ClassId;
use tracing::error;

use crate::config::PoolConfig;
use crate::nodes::{self, TemplateSource};
use crate::role::feed::{Fed, Work};
pub use crate::role::{BlockReport, Btc, Finder, OnBlock, RoleError};
use crate::role::{Crowd, Role, open_journal, server_url};

pub use status::{HashRate, Meter, Status};

/// The class of reserve of the pool's only coinbase.
const POOL_CLASS: ClassId = ClassId(0);

/// A running pool. Dropped without [`Pool::stop`], it ends without grace.
pub struct Pool {
    role: Role<Mining>,
    url: String,
    authority: AuthorityPublicKey,
    grace: Duration,
}

impl Pool {
    /// Starts everything. The source comes first, so that the first miner finds work.
    ///
    /// # Errors
    /// What did not start and what to do; nothing is left running.
    pub fn start(config: PoolConfig, on_block: OnBlock) -> Result<Self, RoleError> {
        let source = nodes::start(&config.settings).map_err(RoleError::Node)?;
        Self::start_with(config, source, on_block)
    }

    /// Starts a pool on a template source that runs already.
    ///
    /// # Errors
    /// What did not start and what to do; nothing is left running.
    pub fn start_with(
        config: PoolConfig,
        source: Box<dyn TemplateSource>,
        on_block: OnBlock,
    ) -> Result<Self, RoleError> {
        let (journal, recovery) = open_journal(config.settings.journal.dir.clone())?;
        let engine_config = EngineConfig {
            listen: config.settings.pool.listen,
            cpus: config.cpus.clone(),
            aead: config.aead,
            service: MiningConfig { server: config.server(), hasher: config.hasher },
            limits: config.engine_limits(),
        };
        let reserve = config.payout.constraints().reserve();
        let authority = config.authority.public_key();
        let grace = Duration::from_secs_f64(config.settings.pool.shutdown_grace_s);
        let mut role = Role::start(engine_config, config.authority, source, Crowd::Many)?;
        let running = role.running();
        let url =
            server_url(config.settings.pool.public_host.as_deref(), running.engine.local_addr(), authority);
        let solutions = running.engine.outputs();
        drop(role.start_blocks(solutions, journal, recovery, on_block)?);
        let running = role.running();
        running.source.want(POOL_CLASS, reserve);
        let (engine, source) = (Arc::clone(&running.engine), running.source.name().to_owned());
        role.start_feed(move |fed| match fed {
            Fed::Work(work) => {
                let updates: Vec<_> =
                    work.into_iter().map(|Work { update, learned, .. }| (update, learned)).collect();
                engine.send_updates(&updates);
            }
            Fed::Refused { reason, .. } => {
                error!(%source, %reason, "the template source cannot leave room for the pool's coinbase: no work comes from it");
            }
        })?;
        let running = role.running();
        let (engine, chain) = (Arc::clone(&running.engine), Arc::clone(&running.chain));
        let source = Arc::clone(&running.source);
        let (tally, mut meter) = (Arc::clone(&running.tally), Meter::default());
        role.start_upkeep(config.settings.log.status_interval_s, move || {
            Status::read(&engine, &**source, &tally, &chain, &mut meter).log();
        })?;
        Ok(Self { role, url, authority, grace })
    }

    /// Where miners connect.
    pub fn local_addr(&self) -> SocketAddr {
        self.role.running().engine.local_addr()
    }

    /// `stratum2+tcp://HOST:PORT/KEY`, for a person to read: `HOST` stands for itself where none is known.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What miners write behind the address.
    pub fn authority(&self) -> AuthorityPublicKey {
        self.authority
    }

    /// What the template source is called.
    pub fn source_name(&self) -> &str {
        self.role.running().source.name()
    }

    /// The present numbers.
    pub fn status(&self, meter: &mut Meter) -> Status {
        let running = self.role.running();
        Status::read(&running.engine, &**running.source, &running.tally, &running.chain, meter)
    }

    /// Looks for a new certificate at once.
    pub fn reload(&self) {
        self.role.reload();
    }

    /// Stops: no new connections, what is found until the grace is over is submitted and recorded, everything is closed.
    pub fn stop(mut self) -> ShutdownReport {
        self.role.end(self.grace).expect("a role ends once")
    }
}
