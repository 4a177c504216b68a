//! The tokio task around a driver: it moves commands, calls and events between
//! bounded queues and decides nothing.

use std::collections::VecDeque;

use futures_util::{StreamExt, future::OptionFuture};
use mezz_proto::time::Time;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use super::{Action, Connecting, Driver, Link, LinkEnd, LinkEvents, Request, Transport};

/// Commands of the application that the driver has not taken yet.
const COMMANDS: usize = 256;
/// Events that the application has not taken yet; beyond that and
/// [`MAX_UNDELIVERED`] the driver stops reading from the master.
const EVENTS: usize = 16;
/// Events that wait for room in the queue to the application.
const MAX_UNDELIVERED: usize = 256;
/// Calls that wait for room in the link; beyond that the application waits.
const MAX_UNSENT: usize = 1024;
/// Bytes that have these events, or these calls; one more is taken below that.
const MAX_BYTES: usize = 64 << 20;

/// Starts the task; `driver` takes the time now. `epoch` is the driver's time at
/// the start.
pub(crate) fn start<D: Driver>(
    epoch: Time,
    driver: D,
    transport: impl Transport<D::Call, D::Wire>,
) -> (mpsc::Sender<Request<D::Command>>, mpsc::Receiver<D::Delivery>) {
    let (commands, command_queue) = mpsc::channel(COMMANDS);
    let (events, event_queue) = mpsc::channel(EVENTS);
    let run = Run {
        clock: Clock { start: Instant::now(), epoch },
        driver,
        transport,
        commands: command_queue,
        events,
        connecting: None,
        link: None,
        half_close: false,
        unsent: Waiting::new(D::call_bytes),
        undelivered: Waiting::new(D::delivery_bytes),
        waiting: Vec::new(),
        just_asked: false,
        unheard: false,
        ended: false,
    };
    tokio::spawn(run.run());
    (commands, event_queue)
}

struct Clock {
    start: Instant,
    /// The driver's time at `start`.
    epoch: Time,
}

impl Clock {
    fn now(&self) -> Time {
        self.epoch + self.start.elapsed()
    }

    fn at(&self, time: Time) -> Instant {
        self.start + time.since(self.epoch)
    }
}

struct Run<D: Driver, T> {
    clock: Clock,
    driver: D,
    transport: T,
    commands: mpsc::Receiver<Request<D::Command>>,
    events: mpsc::Sender<D::Delivery>,
    connecting: Option<Connecting<D::Call, D::Wire>>,
    link: Option<OpenLink<D>>,
    /// End our side of the link when nothing is unsent.
    half_close: bool,
    unsent: Waiting<D::Call>,
    undelivered: Waiting<D::Delivery>,
    /// To be told when the driver has ended.
    waiting: Vec<oneshot::Sender<()>>,
    /// A command was the last to be heard; the rest is looked at first.
    just_asked: bool,
    /// The application has dropped its events.
    unheard: bool,
    ended: bool,
}

/// A queue that knows its weight.
struct Waiting<T> {
    items: VecDeque<T>,
    /// Of one item.
    bytes_of: fn(&T) -> usize,
    bytes: usize,
}

impl<T> Waiting<T> {
    fn new(bytes_of: fn(&T) -> usize) -> Self {
        Self { items: VecDeque::new(), bytes_of, bytes: 0 }
    }

    fn has_room(&self, most: usize) -> bool {
        self.items.len() < most && self.bytes < MAX_BYTES
    }

    fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn back(&self) -> Option<&T> {
        self.items.back()
    }

    fn push_back(&mut self, item: T) {
        self.bytes += (self.bytes_of)(&item);
        self.items.push_back(item);
    }

    fn pop_front(&mut self) -> Option<T> {
        let item = self.items.pop_front();
        self.left(item)
    }

    fn pop_back(&mut self) -> Option<T> {
        let item = self.items.pop_back();
        self.left(item)
    }

    fn left(&mut self, item: Option<T>) -> Option<T> {
        self.bytes -= item.as_ref().map_or(0, self.bytes_of);
        item
    }

    fn clear(&mut self) {
        self.items.clear();
        self.bytes = 0;
    }
}

struct OpenLink<D: Driver> {
    /// Gone when our side has ended.
    calls: Option<mpsc::Sender<D::Call>>,
    events: LinkEvents<D::Wire>,
}

enum Happened<D: Driver> {
    /// Something moved on in a queue.
    Moved,
    /// The application has dropped its events.
    Unheard,
    Asked(Request<D::Command>),
    Opened(Result<Link<D::Call, D::Wire>, LinkEnd>),
    Heard(Result<Box<D::Wire>, LinkEnd>),
    Due,
}

impl<D: Driver, T: Transport<D::Call, D::Wire>> Run<D, T> {
    async fn run(mut self) {
        let mut actions = Vec::new();
        while !self.ended {
            self.step(&mut actions).await;
            for action in actions.drain(..) {
                self.carry_out(action);
            }
        }
        // Whoever waits for what the driver never saw gets an error.
        drop(self.commands);
        for done in self.waiting.drain(..) {
            // The caller may have lost interest.
            let _ = done.send(());
        }
        drop(self.link);
        while let Some(delivery) = self.undelivered.pop_front() {
            if self.events.send(delivery).await.is_err() {
                break;
            }
        }
    }

    /// Waits for one thing to happen.
    async fn step(&mut self, actions: &mut Vec<Action<D>>) {
        if self.half_close
            && self.unsent.is_empty()
            && let Some(link) = &mut self.link
        {
            link.calls = None;
        }
        let deadline = self.driver.next_deadline().map(|t| self.clock.at(t));
        // The end of the link must be read whatever the application reads.
        let reading = self.has_room() || self.driver.is_ending();
        // Nobody can keep the other side from being heard: after a command
        // everything else has its turn.
        let (asked_first, asked_last) = {
            let commands = self.unsent.has_room(MAX_UNSENT).then_some(&mut self.commands);
            if self.just_asked { (None, commands) } else { (commands, None) }
        };
        let (mut calls, mut link_events) = (None, None);
        if let Some(link) = &mut self.link {
            calls = link.calls.as_ref().filter(|_| !self.unsent.is_empty());
            link_events = reading.then_some(&mut link.events);
        }
        // In this order for every run of one seed to be the same.
        let happened: Happened<D> = tokio::select! {
            biased;
            Some(permit) = OptionFuture::from(calls.map(|c| c.reserve())) => {
                match permit {
                    Ok(permit) => {
                        if let Some(call) = self.unsent.pop_front() {
                            permit.send(call);
                        }
                    }
                    // The link is ending; its events will tell.
                    Err(_) => self.unsent.clear(),
                }
                Happened::Moved
            }
            Ok(permit) = self.events.reserve(), if !self.undelivered.is_empty() => {
                if let Some(delivery) = self.undelivered.pop_front() {
                    permit.send(delivery);
                }
                Happened::Moved
            }
            Some(Some(request)) = OptionFuture::from(asked_first.map(|c| c.recv())) => {
                Happened::Asked(request)
            }
            () = self.events.closed(), if !self.unheard => Happened::Unheard,
            Some(opened) = OptionFuture::from(self.connecting.as_mut()) => {
                Happened::Opened(opened)
            }
            Some(event) = OptionFuture::from(link_events.map(|e| e.next())) => {
                Happened::Heard(event.unwrap_or(Err(LinkEnd::Closed)).map(Box::new))
            }
            Some(()) = OptionFuture::from(deadline.map(sleep_until)) => Happened::Due,
            Some(Some(request)) = OptionFuture::from(asked_last.map(|c| c.recv())) => {
                Happened::Asked(request)
            }
        };
        match happened {
            Happened::Asked(_) => self.just_asked = true,
            // Only makes room for more of the same.
            Happened::Moved => {}
            _ => self.just_asked = false,
        }
        let now = self.clock.now();
        match happened {
            Happened::Moved => {}
            Happened::Unheard => {
                self.unheard = true;
                self.undelivered.clear();
                // What was asked before comes first.
                for _ in 0..self.commands.len() {
                    let Ok(request) = self.commands.try_recv() else { break };
                    self.asked(now, request, actions);
                    if matches!(actions.last(), Some(Action::End)) {
                        return;
                    }
                }
                self.driver.on_unheard(now, actions);
            }
            Happened::Asked(request) => self.asked(now, request, actions),
            Happened::Opened(Ok(Link { calls, events })) => {
                self.connecting = None;
                self.link = Some(OpenLink { calls: Some(calls), events });
            }
            Happened::Heard(Ok(event)) => self.driver.on_event(now, *event, actions),
            Happened::Opened(Err(end)) | Happened::Heard(Err(end)) => {
                self.drop_link();
                self.driver.on_link_end(now, end, actions);
            }
            Happened::Due => {
                if !reading {
                    self.driver.not_reading(now);
                }
                self.driver.on_timeout(now, actions);
            }
        }
    }

    fn asked(&mut self, now: Time, request: Request<D::Command>, actions: &mut Vec<Action<D>>) {
        if self.driver.calls_off(&request.command) {
            self.waiting.clear();
        }
        self.waiting.extend(request.done);
        self.driver.on_command(now, request.command, actions);
    }

    fn has_room(&self) -> bool {
        self.undelivered.has_room(MAX_UNDELIVERED)
    }

    fn carry_out(&mut self, action: Action<D>) {
        match action {
            Action::Connect { target, tried, first } => {
                self.drop_link();
                let connecting = self.transport.connect(&target, tried.as_deref(), *first);
                self.connecting = Some(connecting);
            }
            Action::Send(call) => self.unsent.push_back(*call),
            Action::HalfClose => self.half_close = true,
            Action::Abandon => self.drop_link(),
            Action::Deliver(_) if self.unheard || (self.driver.is_ending() && !self.has_room()) => {
            }
            Action::Deliver(delivery) => {
                if self.undelivered.back().is_some_and(|last| D::replaces(last, &delivery)) {
                    self.undelivered.pop_back();
                }
                self.undelivered.push_back(*delivery);
            }
            Action::CallOff => self.waiting.clear(),
            Action::End => self.ended = true,
        }
    }

    fn drop_link(&mut self) {
        self.connecting = None;
        self.link = None;
        self.half_close = false;
        self.unsent.clear();
    }
}
