//! How a call shows whose it is (docs/adr/0015).

use super::{CallError, Core, ExecutorKey, Token};

/// What came with an executor's call. It does not show the token in logs.
#[derive(Clone, Debug)]
pub struct Proof {
    token: Option<Token>,
    local: bool,
    /// It came by itself, and not on the connection that the executor hears on.
    apart: bool,
}

impl Proof {
    /// Of a connection that shows this token.
    pub fn token(token: impl Into<String>) -> Self {
        Self { token: Some(Token(token.into())), local: false, apart: false }
    }

    /// Of an HTTP call: with the token that it shows, if any, and whether it came from the
    /// agent's own machine.
    pub(crate) fn http(token: Option<String>, local: bool) -> Self {
        Self { token: token.map(Token), local, apart: true }
    }

    /// The token, if one was shown. It may be anybody's.
    pub(crate) fn given(&self) -> Option<&str> {
        self.token.as_ref().map(|token| &*token.0)
    }

    /// Whether the call is heard while the executor hears nothing: over HTTP each call comes
    /// by itself, before the end of the stream of events has reached the executor or after.
    pub(super) fn is_apart(&self) -> bool {
        self.apart
    }

    /// Whether somebody who shows this is heard at all: Mesos' executors show a token only
    /// where they must (rule 54), and are believed who they are when they call from here.
    /// `required`: not even then.
    ///
    /// # Errors
    /// [`CallError::NoToken`].
    pub(crate) fn admitted(&self, required: bool) -> Result<(), CallError> {
        match &self.token {
            None if required => Err(CallError::NoToken("this agent wants one of every executor")),
            None if !self.local => {
                Err(CallError::NoToken("only executors on the agent's own machine need none"))
            }
            _ => Ok(()),
        }
    }

    /// Whether it may be the executor with this token, for one who is admitted. A token
    /// that is shown must be right. `proven`: the executor has shown it before, and nobody
    /// is believed to be it without.
    ///
    /// # Errors
    /// [`CallError::Unauthenticated`] and [`CallError::NoToken`].
    pub(crate) fn shows(&self, token: &Token, proven: bool) -> Result<(), CallError> {
        match self.given() {
            Some(given) if token.is(given) => Ok(()),
            Some(_) => Err(CallError::Unauthenticated),
            None if proven => Err(CallError::NoToken("this executor has shown one before")),
            None => Ok(()),
        }
    }
}

impl Core {
    /// Whether a call comes from the executor that it names. Who shows a token learns
    /// nothing of which executors there are; who shows none hears what Mesos says.
    pub(super) fn identify(&self, key: &ExecutorKey, proof: &Proof) -> Result<(), CallError> {
        proof.admitted(self.options.authenticate_executors)?;
        // Nobody comes from a pod: it is the agent's own.
        let executor = self.executors.get(key).filter(|executor| !executor.is_pod());
        match executor {
            Some(executor) => proof.shows(&executor.token, executor.proven),
            None if proof.given().is_none() => {
                let framework = self.frameworks.contains_key(&key.framework);
                Err(CallError::Unknown(if framework { "Executor" } else { "Framework" }))
            }
            None => Err(CallError::Unauthenticated),
        }
    }
}
