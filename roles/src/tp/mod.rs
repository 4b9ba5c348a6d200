//! The template provider: the Template Distribution Protocol on an engine, for pools and job declarators (specification
//! chapter 7).
//!
//! Clients are served by constraint class: the engine says which classes are wanted, the template source makes templates for
//! each, and every report of the source goes to the class that it is for. Blocks that clients find are journalled and
//! submitted as a pool's are. What this role shares with the others, threads and their end, is the module
//! `role`'s.
//!
//! Invariants: a template is known here before a client can name it; a solution is submitted, or journalled with the reason
//! why not. Bounds: see `templates`, `clients`, `requests` and `refusals`; the classes, which the source bounds too.

mod clients;
mod refusals;
mod requests;
mod status;
mod templates;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_codec::keys::AuthorityPublicKey;
use adit_codec::noise::Aead;
use adit_engine::service::{Distribution, DistributionCommand, DistributionUpdate};
use adit_engine::{EngineConfig, EngineHandle, ShutdownReport};
use adit_proto::template::TemplateUpdate;
use crossbeam::channel::bounded;
use tracing::{debug, info, warn};

use crate::config::TpConfig;
use crate::nodes::{self, TemplateSource};
use crate::role::feed::{Fed, Work};
use crate::role::{Crowd, OnBlock, Role, RoleError, open_journal, server_url};

use clients::{ClientTally, Clients};
use refusals::RefusedInMinute;
use requests::Answers;
pub use status::Status;
use templates::KnownTemplates;

/// Blocks between the thread that takes them from the engine and the one that submits them.
const SOLUTIONS_MAX: usize = 64;

/// A running template provider. Dropped without [`Provider::stop`], it ends without grace.
pub struct Provider {
    role: Role<Distribution>,
    tally: Arc<ClientTally>,
    url: String,
    authority: AuthorityPublicKey,
    grace: Duration,
}

impl Provider {
    /// Starts everything.
    ///
    /// # Errors
    /// What did not start and what to do; nothing is left running.
    pub fn start(config: TpConfig, on_block: OnBlock) -> Result<Self, RoleError> {
        let source = nodes::start(&config.settings).map_err(RoleError::Node)?;
        Self::start_with(config, source, on_block)
    }

    /// Starts a template provider on a template source that runs already.
    ///
    /// # Errors
    /// What did not start and what to do; nothing is left running.
    pub fn start_with(
        config: TpConfig,
        source: Box<dyn TemplateSource>,
        on_block: OnBlock,
    ) -> Result<Self, RoleError> {
        let (journal, recovery) = open_journal(config.settings.journal.dir.clone())?;
        let tp = &config.settings.tp;
        let engine_config = EngineConfig {
            listen: tp.listen,
            cpus: vec![config.cpu],
            aead: Aead::detect(),
            service: config.server(),
            limits: config.engine_limits(),
        };
        let patience = Duration::from_secs_f64(config.settings.clients.request_timeout_s);
        let public_host = tp.public_host.clone();
        let grace = Duration::from_secs_f64(tp.shutdown_grace_s);
        let authority = config.authority.public_key();
        let mut role = Role::start(engine_config, config.authority, source, Crowd::Few)?;
        let url = server_url(public_host.as_deref(), role.running().engine.local_addr(), authority);
        let tally = Arc::<ClientTally>::default();
        let known = Arc::<KnownTemplates>::default();

        let (solutions, found) = bounded(SOLUTIONS_MAX);
        let (asks, asked) = bounded(requests::ASKED_MAX);
        let records = role.start_blocks(found, journal, recovery, on_block)?;
        let running = role.running();
        let clients = Clients {
            outputs: running.engine.outputs(),
            source: Arc::clone(&running.source),
            known: Arc::clone(&known),
            tally: Arc::clone(&tally),
            asked: asks,
            solutions,
            records,
            seen: clients::Seen::default(),
            refused_in_minute: RefusedInMinute::begin(Instant::now()),
        };
        role.drain("clients", move || clients.run())?;

        let running = role.running();
        let (engine, source) = (Arc::clone(&running.engine), Arc::clone(&running.source));
        let answers = Arc::clone(&tally);
        role.feed("transactions", move |stopped| {
            let answers =
                Answers { engine: &engine, source: &**source, answered: &answers.answered, patience };
            answers.run(&asked, &stopped);
        })?;
        let engine = Arc::clone(&role.running().engine);
        role.start_feed(move |fed| handle_fed(fed, &engine, &known))?;
        let running = role.running();
        let (engine, chain) = (Arc::clone(&running.engine), Arc::clone(&running.chain));
        let source = Arc::clone(&running.source);
        let (blocks, clients) = (Arc::clone(&running.tally), Arc::clone(&tally));
        role.start_upkeep(config.settings.log.status_interval_s, move || {
            Status::read(&engine, &**source, &blocks, &clients, &chain).log();
        })?;
        Ok(Self { role, tally, url, authority, grace })
    }

    /// Where clients connect.
    pub fn local_addr(&self) -> SocketAddr {
        self.role.running().engine.local_addr()
    }

    /// `stratum2+tcp://HOST:PORT/KEY`, for a person to read: `HOST` stands for itself where none is known.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What clients are told as the provider's public key.
    pub fn authority(&self) -> AuthorityPublicKey {
        self.authority
    }

    /// What the template source is called.
    pub fn source_name(&self) -> &str {
        self.role.running().source.name()
    }

    /// The present numbers.
    pub fn status(&self) -> Status {
        let running = self.role.running();
        Status::read(&running.engine, &**running.source, &running.tally, &self.tally, &running.chain)
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

/// Passes reports of the source on to their classes.
fn handle_fed(fed: Fed, engine: &EngineHandle<Distribution>, known: &KnownTemplates) {
    match fed {
        Fed::Work(work) => {
            let updates: Vec<_> = work
                .into_iter()
                .map(|Work { class, update, learned }| {
                    known.learn(class, &update);
                    (DistributionUpdate { class, update }, learned)
                })
                .collect();
            engine.send_updates(&updates);
            // The log's writer may be slow.
            updates.iter().for_each(|(update, _)| log(update));
        }
        Fed::Refused { class, reason } => {
            warn!(class = class.0, %reason, "the template source cannot leave the room that a class asks for: its clients are closed");
            // A shard that does not answer has ended, and its clients with it.
            let _ = engine.command(0, DistributionCommand::RefuseClass(class));
        }
    }
}

fn log(DistributionUpdate { class, update }: &DistributionUpdate) {
    match update {
        TemplateUpdate::NewTemplate(template) => {
            let (template_id, future) = (template.template_id, template.future_template);
            debug!(class = class.0, template_id, future, "a template goes to a class");
        }
        TemplateUpdate::SetNewPrevHash(tip) => {
            info!(class = class.0, template_id = tip.template_id, "a new tip goes to a class");
        }
    }
}
