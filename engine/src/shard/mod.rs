//! A shard: one thread, one executor, its own rings, and everything about the connections that it was given.
//!
//! [`Core`] is the shard without sockets and clock; `Shard` drives it: bytes from the [`Transport`] in, effects out, links
//! looked at, time read once per tick. A shard that has nothing to do sleeps first in its ring, then in its executor, until a
//! completion, a wake of its links or its next timer.

mod backlog;
mod connection;
mod core;
mod deadlines;
mod detached;
mod gathering;
mod handshakes;
mod lifecycle;
mod links;
mod outgoing;

use std::sync::atomic::Ordering;
use std::time::Duration;

use adit_codec::noise::Aead;
use adit_proto::Instant;

pub use self::core::{Core, Effect};
pub use self::detached::Detached;

use self::gathering::{Gathering, Received};
use self::links::CoreLinks;
use crate::counters::Counter;
use crate::end::EndReason;
use crate::error::StartError;
use crate::identity::IdentityReader;
use crate::limits::{EngineLimits, tick};
use crate::log::{LogEvent, LogSender};
use crate::service::{Service, ServiceConfig};
use crate::tips::{Since, TipClock};
use crate::topology::{Sent, ShardLinks};
use crate::transport::{Sizes, Transport, Waiter};

/// How long a shard sleeps in its own ring before it sleeps in its executor. It is meant to save a wake through the
/// executor, which no bench shows yet; the executor's other tasks run only then, and every [`ROUNDS_PER_YIELD`] rounds.
const RING_WAIT_MAX: Duration = Duration::from_millis(2);
/// Rounds without a pause before the executor's other tasks get a turn.
const ROUNDS_PER_YIELD: u32 = 64;
/// How long links are not looked at while what arrives gathers: a tip may be later by so much, and the timer's slack of 50 us.
const GATHER_SLICE: Duration = Duration::from_micros(150);
/// The longest wait: timers are looked at, whatever happens.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// How often a shard that cannot pass on its outputs looks again.
const BLOCKED_PAUSE: Duration = Duration::from_millis(1);
/// The shortest wait that is worth a timer.
const WAIT_MIN: Duration = Duration::from_micros(50);

/// What a shard is made of.
pub(crate) struct ShardConfig<C> {
    pub(crate) service: C,
    pub(crate) shard: u8,
    /// Differs from start to start.
    pub(crate) random: u64,
    pub(crate) limits: EngineLimits,
    pub(crate) aead: Aead,
    pub(crate) handshakes_per_second: f64,
    pub(crate) sizes: Sizes,
    pub(crate) origin: std::time::Instant,
}

/// A running shard.
pub(crate) struct Shard<S: Service> {
    core: Core<S>,
    transport: Transport,
    links: ShardLinks<S>,
    waiter: Waiter,
    gathering: Gathering,
    origin: std::time::Instant,
    /// Whether the end was asked for.
    stopping: bool,
    /// Whether peers were told.
    hung_up: bool,
}

impl<S: Service> Shard<S> {
    /// Makes the rings and the service. To be called on the shard's own executor.
    pub(crate) fn new(config: ShardConfig<S::Config>, links: ShardLinks<S>) -> Result<Self, StartError> {
        let transport = Transport::new(config.sizes, &links.wake).map_err(StartError::from_ring)?;
        let waiter = links
            .wake
            .waiter()
            .map_err(|error| StartError::System { what: "duplicate a shard's eventfd", error })?;
        let now = since(config.origin);
        let shard = config.shard;
        let service = config.service.start(shard, config.random, now)?;
        let core_links = CoreLinks::new(
            links.outputs.clone(),
            LogSender::new(shard, links.log.clone(), config.limits.log_lines_per_second_max),
            IdentityReader::new(links.identity.clone()),
            links.counters.clone(),
            TipClock::new(links.tips.clone()),
        );
        let rate = config.handshakes_per_second;
        let core = Core::with_links(service, shard, config.limits, config.aead, rate, core_links, now);
        let gathering = Gathering::new(config.limits.gather_max, now);
        let origin = config.origin;
        Ok(Self { core, transport, links, waiter, gathering, origin, stopping: false, hung_up: false })
    }

    /// Serves until it is told to stop, or until its ring fails.
    pub(crate) async fn run(mut self) {
        if let Err(error) = self.serve().await {
            let cause = format!("its io_uring failed: {error}");
            let _ = self.links.log.try_send(LogEvent::ShardFailed { shard: self.core.shard, cause });
        }
        self.core.leave(&self.links.stop);
        self.core.publish_counters();
        self.links.counters.set_over();
        self.waiter.close().await;
    }

    async fn serve(&mut self) -> std::io::Result<()> {
        let mut rounds = 0;
        while !self.is_done() {
            let more = self.tick()?;
            rounds += 1;
            if rounds % ROUNDS_PER_YIELD == 0 {
                glommio::executor().yield_task_queue_now().await;
            }
            if more {
                continue;
            }
            if self.core.is_blocked() {
                glommio::timer::sleep(BLOCKED_PAUSE).await;
                continue;
            }
            if self.gather() {
                continue;
            }
            if self.transport.is_quiet() && self.core.make_spare_key() {
                continue;
            }
            let patience = self.patience();
            let waited = std::time::Instant::now();
            self.transport.wait(patience.min(RING_WAIT_MAX))?;
            if waited.elapsed() < RING_WAIT_MAX || patience <= RING_WAIT_MAX || !self.transport.prepare_wait()
            {
                continue;
            }
            if !self.waiter.wait(patience - RING_WAIT_MAX).await {
                return Err(std::io::Error::other("the eventfd cannot be read"));
            }
        }
        Ok(())
    }

    /// Lets what arrives gather, where that pays; until something comes over a link. Returns whether there was a pause.
    fn gather(&mut self) -> bool {
        let received = Received {
            portions: self.transport.counters().receives,
            frames: self.links.counters.load(Counter::FramesReceived),
        };
        let now = since(self.origin);
        let Some(pause) = self.gathering.pause(received, self.core.now, now) else { return false };
        // More is there already, or work goes out as soon as the sends are over that this round has begun.
        if self.transport.is_cut_short() || self.core.work_waits() {
            return false;
        }
        let end = now + pause.min(self.patience());
        loop {
            let rest = end.since(since(self.origin));
            if rest.is_zero() || self.links.wake.is_pending() {
                return true;
            }
            if !self.core.make_spare_key() {
                std::thread::sleep(rest.min(GATHER_SLICE));
            }
        }
    }

    fn is_done(&self) -> bool {
        self.links.stop.at_once.load(Ordering::Acquire) || self.stopping && self.transport.sockets() == 0
    }

    /// One round: everything that is there, in bounded portions. Returns whether something is left that no completion
    /// and no timer will tell of.
    fn tick(&mut self) -> std::io::Result<bool> {
        self.links.wake.acknowledge();
        self.core.begin_tick(since(self.origin));
        self.take_updates();
        // A tip waits for nothing that this tick does for others.
        self.core.flush_work();
        self.leave()?;
        let mut more = self.take_links();
        let mut busy = false;
        if !self.core.is_blocked() {
            busy = self.transport.poll(&mut self.core, tick::RECEIVE)?;
            self.core.settle();
        }
        if self.core.poll_timeout().is_some_and(|due| due <= self.core.now) {
            self.core.handle_timeout();
        }
        self.core.flush_work();
        self.leave()?;
        self.core.flush();
        self.publish_counters();
        self.apply_effects()?;
        more |= self.core.poll_fan_out(tick::FAN_OUT_CONNECTIONS);
        self.core.flush();
        self.apply_effects()?;
        let handshakes_max = if busy || more { tick::HANDSHAKES_BUSY_MAX } else { tick::HANDSHAKES_MAX };
        more |= self.core.poll_handshakes(handshakes_max);
        self.apply_effects()?;
        Ok(more)
    }

    /// Lets what was sealed go, if there is something. Counters are published before: whoever has read a frame finds it
    /// counted.
    fn leave(&mut self) -> std::io::Result<()> {
        if !self.core.has_effects() {
            return Ok(());
        }
        self.publish_counters();
        self.apply_effects()
    }

    fn publish_counters(&mut self) {
        self.core.publish_counters();
        let ring = self.transport.counters();
        self.links.counters.set(Counter::ReceiveBuffersExhausted, ring.buffers_exhausted);
        self.links.counters.set(Counter::CompletionOverflows, ring.overflows);
        self.links.counters.set(Counter::RingEnters, ring.enters);
    }

    /// Takes templates from their link: first, because they are what everybody waits for.
    fn take_updates(&mut self) {
        while let Ok(Sent { update, learned, at }) = self.links.updates.try_recv() {
            let since = Since { learned: moment(learned, self.origin), handed_over: moment(at, self.origin) };
            self.core.handle_update_since(&update, since);
        }
    }

    /// Takes what else other threads have put into the links. Returns whether some is left.
    fn take_links(&mut self) -> bool {
        while let Ok(pending) = self.links.commands.try_recv() {
            // Whoever asked may have gone.
            let _ = pending.answer.try_send(self.core.handle_command(pending.command));
        }
        for _ in 0..tick::SOCKETS_MAX {
            let Ok(new) = self.links.sockets.try_recv() else { break };
            match self.transport.attach(new.socket) {
                Ok(socket) => {
                    self.core.handle_socket(socket, new.peer, new.ticket);
                    if self.stopping {
                        self.core.end(socket, EndReason::Shutdown);
                    }
                }
                Err(error) => self.core.refuse_socket(new.peer, &error),
            }
        }
        if !self.stopping && self.links.stop.requested.load(Ordering::Acquire) {
            self.stopping = true;
            self.core.begin_shutdown();
        }
        if self.stopping && !self.hung_up && self.links.stop.hang_up.load(Ordering::Acquire) {
            self.hung_up = true;
            self.core.settle_all();
            self.core.flush();
            self.core.hang_up();
        }
        !self.links.sockets.is_empty()
    }

    fn apply_effects(&mut self) -> std::io::Result<()> {
        let transport = &mut self.transport;
        self.core.take_effects(|effect| match effect {
            Effect::Send(socket, buffer) => transport.send(socket, buffer),
            Effect::ShutdownWrite(socket) => transport.shutdown_write(socket),
            Effect::Close(socket) => transport.close(socket),
        });
        self.transport.submit()
    }

    /// How long there is nothing to do.
    fn patience(&self) -> Duration {
        if self.core.keeps_outputs() {
            return BLOCKED_PAUSE;
        }
        match self.core.poll_timeout() {
            Some(due) => due.since(since(self.origin)).clamp(WAIT_MIN, WAIT_MAX),
            None => WAIT_MAX,
        }
    }
}

/// A moment of the monotonic clock, as the state machines count it.
fn moment(at: std::time::Instant, origin: std::time::Instant) -> Instant {
    let since = at.saturating_duration_since(origin).as_nanos();
    Instant::from_nanos(u64::try_from(since).unwrap_or(u64::MAX))
}

/// The monotonic clock, as the state machines count it.
fn since(origin: std::time::Instant) -> Instant {
    moment(std::time::Instant::now(), origin)
}
