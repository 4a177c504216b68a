//! Pings, broken links, and time running out.

use mezz_proto::{
    mezz::v1::{self as mezz, master_message::Message},
    time::Time,
};

use crate::{
    allocator::AgentKey,
    core::{
        ConnectionId, Core, Effects,
        state::{AgentLink, Timer},
    },
};

impl Core {
    /// Rule 45: a ping every interval; the link of an agent that leaves too many in a
    /// row unanswered is ended, and its time is up. Should it live it will connect anew.
    pub(in crate::core) fn ping_due(&mut self, now: Time, key: AgentKey, out: &mut Effects) {
        let (interval, allowed) = (self.options.ping_interval, self.options.max_missed_pings);
        let AgentLink::Connected { connection, ping } = &mut self.agents[key].link else { return };
        if ping.waiting {
            ping.missed += 1;
        }
        // The timer of this ping has been taken out of the queue already.
        ping.next = now + interval;
        let connection = *connection;
        if ping.missed < allowed {
            ping.number += 1;
            ping.waiting = true;
            out.agent(connection, Message::Ping(mezz::Ping { number: ping.number }));
            self.timers.set(ping.next, Timer::Ping(key));
        } else {
            out.close_agent(connection);
            self.cut_off(now, key, now, out);
        }
    }

    /// A late answer shows that the agent lives, too; only the last ping's own
    /// answer ends the wait for it.
    pub(super) fn pong(&mut self, key: AgentKey, number: u64) {
        if let AgentLink::Connected { ping, .. } = &mut self.agents[key].link
            && number <= ping.number
        {
            ping.missed = 0;
            ping.waiting &= number != ping.number;
        }
    }

    /// The link ended. The agent keeps its tasks and has
    /// `agent_reregister_timeout` to come back.
    ///
    /// Unlike Mesos (rule 46) tasks of frameworks without `checkpoint` are not
    /// lost at once: our agents keep every task over their own restart.
    pub(in crate::core) fn agent_disconnected(
        &mut self,
        now: Time,
        connection: ConnectionId,
        out: &mut Effects,
    ) {
        let Some(&key) = self.agent_links.get(&connection) else { return };
        self.cut_off(now, key, now + self.options.agent_reregister_timeout, out);
    }

    /// The agent has no link any more, and until then to come back.
    fn cut_off(&mut self, now: Time, key: AgentKey, until: Time, out: &mut Effects) {
        self.rescind_agent_offers(now, key, out);
        self.allocator.set_agent_active(key, false);
        self.set_agent_link(key, AgentLink::Disconnected { until });
        self.publish_agent(key, out);
    }

    /// A disconnected or recovering agent did not come back in time: it becomes
    /// unreachable, or waits until the rate allows it. Or an unreachable one has been
    /// kept long enough (rule 76).
    pub(in crate::core) fn agent_away_too_long(
        &mut self,
        now: Time,
        key: AgentKey,
        out: &mut Effects,
    ) {
        match self.agents[key].link {
            AgentLink::Unreachable { .. } => self.give_up_agent(now, key, out),
            AgentLink::Disconnected { until } | AgentLink::Recovering { until } => {
                if self.removals.take_turn(now) {
                    self.mark_unreachable(now, key, out);
                } else {
                    self.wait_for_removal(until, key);
                }
            }
            AgentLink::Connected { .. } => {}
        }
    }

    /// The turn of the one that has waited longest.
    pub(in crate::core) fn removal_due(&mut self, now: Time, out: &mut Effects) {
        let Some(key) = self.removals.pop(now) else { return };
        self.counters.agent_losses_waiting -= 1;
        if let Some(next) = self.removals.due() {
            self.timers.set(next, Timer::Removal);
        }
        self.mark_unreachable(now, key, out);
    }

    fn wait_for_removal(&mut self, until: Time, key: AgentKey) {
        self.removals.wait(until, key);
        // The same entry for all of them.
        if let Some(next) = self.removals.due() {
            self.timers.set(next, Timer::Removal);
        }
        self.counters.agent_losses_waiting += 1;
        self.counters.agent_losses_delayed += 1;
    }
}
