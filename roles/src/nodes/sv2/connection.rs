//! One connection to the template provider, made again whenever it is lost.
//!
//! A task for each constraint class, all on the source's thread: it dials, speaks through the state machine
//! ([`Client`]), and reports to the provider's state ([`Report`]) what came. It takes orders for the connection that they
//! were meant for and ignores those for an earlier one. It ends when nobody can send it orders any more.
//!
//! Bounds: [`FRAMES_PER_S_MAX`] frames in a second; [`TIPS_AT_ONCE_MAX`] tips at once and then one each [`TIP_INTERVAL`], or
//! the provider is not read; [`FRAME_TIMEOUT`] for a frame that was begun; between two tries a pause that doubles from
//! [`PAUSE_MIN`] to [`PAUSE_MAX`] and begins anew once a connection has held for [`STABLE`].

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use adit_codec::keys::AuthorityPublicKey;
use adit_proto::distribution::client::{Client, ClientConfig, ClientEvent, ClientOutbox, TransactionList};
use adit_proto::distribution::server::ClassId;
use adit_proto::mining::server::Solution;
use adit_proto::template::TemplateUpdate;
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until};

use super::dial::{Address, Link, dial};
use super::lost::Lost;
use super::provider::Wanted;
use crate::nodes::pause::Pause;

/// Pause after the first loss.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A connection that held for this long ends the doubling.
const STABLE: Duration = Duration::from_secs(10);
/// A provider that sends more frames in a second is left: none has so much to say.
const FRAMES_PER_S_MAX: u32 = 4_000;
/// Tips that are read as fast as they come: a chain for tests makes many in a moment.
const TIPS_AT_ONCE_MAX: u32 = 100;
/// After these: each tip costs a job for every miner, and a hostile provider could send thousands in a second.
const TIP_INTERVAL: Duration = Duration::from_millis(50);
/// For the rest of a frame whose first bytes came: a whole block's transactions over a slow line take less.
const FRAME_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection that was set up; no two have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LinkId(pub(super) u64);

/// What a task is told.
#[derive(Debug)]
pub(super) struct Command {
    /// The connection that it is for.
    pub(super) link: LinkId,
    pub(super) order: Order,
}

/// See [`Command`].
#[derive(Debug)]
pub(super) enum Order {
    /// Send a solution; its template's id is the provider's.
    Submit(Box<Solution>),
    /// Ask for a template's transactions; the id is the provider's.
    Request(u64),
    /// End the connection and make another.
    Close(Lost),
}

/// What a task reports. Ids of templates are the provider's.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) class: ClassId,
    /// Tells tasks of one class apart that came one after the other.
    pub(super) task: u64,
    pub(super) what: What,
}

/// See [`Report`].
#[derive(Debug)]
pub(super) enum What {
    /// A connection was set up; what follows is its.
    Ready(LinkId),
    /// A template or a tip.
    Template(TemplateUpdate),
    /// The transactions of a template.
    Transactions { template_id: u64, transactions: TransactionList },
    /// There are none for a template.
    NoTransactions { template_id: u64, reason: String },
    /// The connection ended, or the try to make one.
    Lost(Lost),
}

/// How the provider is reached, and what it is told of this program.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    /// Who must vouch for the server, if anybody.
    pub(super) authority: Option<AuthorityPublicKey>,
    pub(super) client: ClientConfig,
}

/// The task's own.
pub(super) struct Connection {
    class: ClassId,
    task: u64,
    home: Address,
    /// Where the provider asked to be looked for the next time.
    moved_to: Option<Address>,
    authority: Option<AuthorityPublicKey>,
    client: Client,
    /// The last connection's id; shared by all tasks.
    links: Rc<Cell<u64>>,
    commands: mpsc::Receiver<Command>,
    reports: mpsc::Sender<Report>,
    origin: Instant,
}

/// Why a try or a connection is over.
enum End {
    /// Nobody wants it any more.
    Unwanted,
    Lost(Lost),
}

impl From<Lost> for End {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

impl Connection {
    /// A task that is not running yet.
    pub(super) fn new(
        wanted: Wanted,
        target: &Target,
        links: Rc<Cell<u64>>,
        reports: mpsc::Sender<Report>,
    ) -> Self {
        let Wanted { class, task, constraints, commands } = wanted;
        let Target { host, port, authority, client } = target.clone();
        let client = Client::new(ClientConfig { constraints, ..client });
        Self {
            class,
            task,
            home: Address { host, port },
            moved_to: None,
            authority,
            client: client.expect("the configuration was judged when the source was started"),
            links,
            commands,
            reports,
            origin: Instant::now(),
        }
    }

    /// Runs until nobody can give orders any more.
    pub(super) async fn run(mut self) {
        let mut pause = Pause::new(PAUSE_MIN, PAUSE_MAX);
        loop {
            let begun = Instant::now();
            let End::Lost(lost) = self.connect_and_serve().await else { return };
            if begun.elapsed() >= STABLE {
                pause.reset();
            }
            self.report(What::Lost(lost)).await;
            tokio::select! {
                () = sleep(pause.next_pause()) => {}
                () = unwanted(&mut self.commands) => return,
            }
        }
    }

    async fn connect_and_serve(&mut self) -> End {
        let address = self.moved_to.take().unwrap_or_else(|| self.home.clone());
        let link = tokio::select! {
            link = dial(&address, self.authority.as_ref()) => link,
            () = unwanted(&mut self.commands) => return End::Unwanted,
        };
        let served = match link {
            Ok(link) => self.serve(link).await,
            Err(lost) => Err(End::Lost(lost)),
        };
        match served {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn serve(&mut self, mut link: Link) -> Result<std::convert::Infallible, End> {
        let id = LinkId(self.links.get() + 1);
        self.links.set(id.0);
        let mut out = ClientOutbox::new();
        self.client.handle_connected(self.now(), &mut out);
        let mut pace = Pace { second: Instant::now(), frames: 0 };
        let mut frame_deadline: Option<Instant> = None;
        let mut tips = TipPace::default();
        loop {
            self.emit(id, &mut link, &mut out, &mut tips).await?;
            let timeout = self.until_timeout();
            let paused_until = tips.paused_until().filter(|until| *until > Instant::now());
            tokio::select! {
                // A solution goes before what came.
                biased;
                command = self.commands.recv() => match command {
                    Some(command) if command.link == id => self.obey(command.order, &mut out).await?,
                    Some(_) => {}
                    None => return Err(End::Unwanted),
                },
                // What waits in the meantime waits at the provider's end.
                () = pass(paused_until, None), if paused_until.is_some() => {}
                read = link.read(), if paused_until.is_none() => {
                    let len = read?;
                    if len == 0 {
                        return Err(Lost::Closed { is_set_up: self.client.is_ready() }.into());
                    }
                    let frames = self.receive(&mut link, len, &mut out)?;
                    pace.count(frames)?;
                    frame_deadline = match link.is_within_frame() {
                        true if frames > 0 => Some(Instant::now() + FRAME_TIMEOUT),
                        true => frame_deadline.or_else(|| Some(Instant::now() + FRAME_TIMEOUT)),
                        false => None,
                    };
                },
                () = pass(timeout, frame_deadline) => {
                    if frame_deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                        return Err(Lost::SlowFrame.into());
                    }
                    let now = self.now();
                    self.client.handle_timeout(now, &mut out).map_err(Lost::Fault)?;
                },
            }
        }
    }

    /// Hands the frames that the last `len` bytes complete to the state machine; says how many there were.
    fn receive(&mut self, link: &mut Link, len: usize, out: &mut ClientOutbox) -> Result<u32, Lost> {
        let (now, client) = (self.now(), &mut self.client);
        let mut frames = 0;
        link.frames(len, |header, payload| {
            frames += 1;
            client.handle_frame(header, payload, now, out).map_err(Lost::Fault)
        })?;
        Ok(frames)
    }

    async fn obey(&mut self, order: Order, out: &mut ClientOutbox) -> Result<(), Lost> {
        let now = self.now();
        match order {
            Order::Submit(solution) => {
                if let Err(refusal) = self.client.submit_solution(&solution, out) {
                    tracing::warn!(hash = %solution.digest, %refusal, "solution not sent");
                }
            }
            Order::Request(template_id) => {
                if let Err(refusal) = self.client.request_transaction_data(template_id, now, out) {
                    let reason = refusal.to_string();
                    self.report(What::NoTransactions { template_id, reason }).await;
                }
            }
            Order::Close(lost) => return Err(lost),
        }
        Ok(())
    }

    /// Sends the frames that wait and reports the events.
    async fn emit(
        &mut self,
        id: LinkId,
        link: &mut Link,
        out: &mut ClientOutbox,
        tips: &mut TipPace,
    ) -> Result<(), Lost> {
        if out.frames().next().is_some() {
            link.send(out.frames().map(|(_, _, frame)| frame)).await?;
            out.clear_frames();
        }
        for event in out.drain_events() {
            let what = match event {
                ClientEvent::SetUp { .. } => {
                    link.handle_set_up();
                    What::Ready(id)
                }
                ClientEvent::SetupRefused { flags, error_code } => {
                    return Err(Lost::SetupRefused { flags, error_code });
                }
                ClientEvent::Template(update) => {
                    if matches!(update, TemplateUpdate::SetNewPrevHash(_)) {
                        tips.count(Instant::now());
                    }
                    What::Template(update)
                }
                ClientEvent::Transactions { template_id, transactions, .. } => {
                    What::Transactions { template_id, transactions }
                }
                ClientEvent::TransactionsRefused { template_id, error_code } => {
                    What::NoTransactions { template_id, reason: error_code }
                }
                // The kernel of a process that hangs goes on answering for it: this is how that shows.
                ClientEvent::TransactionsTimedOut { .. } => return Err(Lost::Unanswered),
                ClientEvent::Reconnect { host, port } => {
                    let Address { host: home, port: home_port } = &self.home;
                    self.moved_to = Some(Address {
                        host: host.unwrap_or_else(|| home.clone()),
                        port: port.unwrap_or(*home_port),
                    });
                    return Err(Lost::Moved);
                }
            };
            // A source that has ended reads no reports.
            let _ = self.reports.send(Report { class: self.class, task: self.task, what }).await;
        }
        Ok(())
    }

    async fn report(&mut self, what: What) {
        // A source that has ended reads no reports.
        let _ = self.reports.send(Report { class: self.class, task: self.task, what }).await;
    }

    fn now(&self) -> adit_proto::Instant {
        adit_proto::Instant::ZERO + self.origin.elapsed()
    }

    /// When the state machine has something to do.
    fn until_timeout(&self) -> Option<Instant> {
        let timeout = self.client.poll_timeout()?;
        Some(self.origin + timeout.since(adit_proto::Instant::ZERO))
    }
}

/// Waits for the earlier of two moments; for ever if there is none.
pub(super) async fn pass(first: Option<Instant>, second: Option<Instant>) {
    match first.into_iter().chain(second).min() {
        Some(moment) => sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

/// Waits until nobody can give orders any more; those that come are for a connection that is over.
async fn unwanted(commands: &mut mpsc::Receiver<Command>) {
    while commands.recv().await.is_some() {}
}

/// Says when the next tip may be read: a bucket of [`TIPS_AT_ONCE_MAX`] that refills each [`TIP_INTERVAL`].
#[derive(Debug, Default)]
struct TipPace {
    /// When the bucket is full again.
    full_at: Option<Instant>,
}

impl TipPace {
    /// A tip came.
    fn count(&mut self, now: Instant) {
        self.full_at = Some(self.full_at.map_or(now, |full_at| full_at.max(now)) + TIP_INTERVAL);
    }

    /// Until when nothing is read.
    fn paused_until(&self) -> Option<Instant> {
        self.full_at?.checked_sub(TIP_INTERVAL * TIPS_AT_ONCE_MAX)
    }
}

/// Counts frames by the second.
#[derive(Debug)]
struct Pace {
    second: Instant,
    frames: u32,
}

impl Pace {
    fn count(&mut self, frames: u32) -> Result<(), Lost> {
        if self.second.elapsed() >= Duration::from_secs(1) {
            *self = Self { second: Instant::now(), frames: 0 };
        }
        self.frames += frames;
        if self.frames > FRAMES_PER_S_MAX { Err(Lost::Flood) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tips_in_a_row_are_read_at_once_and_a_flood_at_a_pace() {
        let mut tips = TipPace::default();
        let mut now = Instant::now() + Duration::from_secs(3_600);
        let is_paused = |tips: &TipPace, now| tips.paused_until().is_some_and(|until| until > now);
        for _ in 0..TIPS_AT_ONCE_MAX {
            assert!(!is_paused(&tips, now));
            tips.count(now);
        }
        assert!(!is_paused(&tips, now));
        // Whoever sends as fast as it is read has one tip read each interval.
        let (begun, mut read) = (now, 0);
        while now < begun + Duration::from_secs(10) {
            if is_paused(&tips, now) {
                now += Duration::from_millis(1);
            } else {
                tips.count(now);
                read += 1;
            }
        }
        assert!((200..=201).contains(&read), "{read}");
        now += TIP_INTERVAL * TIPS_AT_ONCE_MAX;
        (0..TIPS_AT_ONCE_MAX).for_each(|_| tips.count(now));
        assert!(!is_paused(&tips, now), "the bucket is full again");
        tips.count(now);
        assert_eq!(tips.paused_until(), Some(now + TIP_INTERVAL));
    }
}
