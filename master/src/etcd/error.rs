//! What etcd can answer, by what there is to be done about it.

use std::path::PathBuf;

use etcd_client::Error;
use thiserror::Error as ThisError;
use tonic::{Code, Status};

/// What was being done, for messages.
pub type Doing = &'static str;

/// Why etcd did not do what was asked.
#[derive(Debug, ThisError)]
pub enum EtcdError {
    /// No member answers, or they have no leader. May pass.
    #[error("{place} does not answer while {doing}")]
    Unreachable {
        /// Its addresses.
        place: String,
        /// What for.
        doing: Doing,
        /// Its own words; none when there was no answer in time.
        #[source]
        source: Option<Box<Error>>,
    },
    /// Its database is at its quota, which raises the alarm NOSPACE.
    #[error(
        "{place} has no space left while {doing}: compact and defragment it, then disarm its alarm \
         (`etcdctl alarm disarm`), or give it a larger --quota-backend-bytes"
    )]
    NoSpace {
        /// Its addresses.
        place: String,
        /// What for.
        doing: Doing,
    },
    /// What was being read was compacted meanwhile: it has to be read anew.
    #[error("{place} was compacted while {doing}")]
    Compacted {
        /// Its addresses.
        place: String,
        /// What for.
        doing: Doing,
    },
    /// The user or its rights.
    #[error(
        "{place} refuses while {doing}; check --etcd-user and its password, and that its role may \
         read and write all keys below the prefix: {reason}"
    )]
    Permission {
        /// Its addresses.
        place: String,
        /// What for.
        doing: Doing,
        /// etcd's words.
        reason: String,
    },
    /// The token that stands for user and password has ended: a new one is needed.
    #[error("{place} wants user and password anew while {doing}")]
    TokenExpired {
        /// Its addresses.
        place: String,
        /// What for.
        doing: Doing,
    },
    /// The lease has ended.
    #[error("the lease has ended at {place} while {doing}")]
    LeaseExpired {
        /// Its addresses.
        place: String,
        /// What for.
        doing: Doing,
    },
    /// A file for TLS cannot be read.
    #[error("cannot read {path}, which TLS to etcd needs")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Anything else: trying again would end the same.
    #[error("{place} failed while {doing}")]
    Failed {
        /// Its addresses.
        place: String,
        /// What for.
        doing: Doing,
        /// Its own words.
        #[source]
        source: Box<Error>,
    },
}

impl EtcdError {
    /// By etcd's code and words.
    pub fn new(place: &str, doing: Doing, source: Error) -> Self {
        let place = place.to_owned();
        let source = Box::new(source);
        let status = match &*source {
            Error::GRpcStatus(status) => status,
            Error::TransportError(_) | Error::IoError(_) => {
                return Self::Unreachable { place, doing, source: Some(source) };
            }
            Error::LeaseKeepAliveError(_) => return Self::LeaseExpired { place, doing },
            _ => return Self::Failed { place, doing, source },
        };
        match kind(status) {
            Kind::Passing => Self::Unreachable { place, doing, source: Some(source) },
            Kind::NoSpace => Self::NoSpace { place, doing },
            Kind::Compacted => Self::Compacted { place, doing },
            Kind::Token => Self::TokenExpired { place, doing },
            Kind::Permission => {
                Self::Permission { place, doing, reason: status.message().to_owned() }
            }
            Kind::Lease => Self::LeaseExpired { place, doing },
            Kind::Other => Self::Failed { place, doing, source },
        }
    }

    /// Whether the same may succeed later.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::NoSpace { .. }
                | Self::Compacted { .. }
                | Self::TokenExpired { .. }
        )
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Passing,
    NoSpace,
    Compacted,
    Token,
    Permission,
    Lease,
    Other,
}

/// etcd tells most kinds only by words (`api/v3/v3rpc/rpctypes/error.go`).
fn kind(status: &Status) -> Kind {
    let says = |text: &str| status.message().contains(text);
    match status.code() {
        Code::ResourceExhausted if says("space exceeded") => Kind::NoSpace,
        Code::OutOfRange if says("compacted") => Kind::Compacted,
        Code::NotFound if says("lease not found") => Kind::Lease,
        Code::Unauthenticated if says("invalid auth token") => Kind::Token,
        Code::InvalidArgument if says("revision of auth store is old") => Kind::Token,
        Code::PermissionDenied | Code::Unauthenticated => Kind::Permission,
        Code::InvalidArgument if says("user name") || says("authentication") => Kind::Permission,
        Code::FailedPrecondition if says("authentication is not enabled") => Kind::Permission,
        // Too many requests at once, a member that starts, no leader, a timeout.
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Aborted
        | Code::ResourceExhausted => Kind::Passing,
        // The connection broke under the request.
        Code::Unknown | Code::Internal if !says("etcdserver") => Kind::Passing,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etcds_words_are_understood() {
        let cases = [
            (Code::Unavailable, "etcdserver: no leader", Kind::Passing),
            (Code::Unavailable, "etcdserver: request timed out", Kind::Passing),
            (Code::ResourceExhausted, "etcdserver: too many requests", Kind::Passing),
            (Code::Unknown, "transport error", Kind::Passing),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", Kind::NoSpace),
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
                Kind::Compacted,
            ),
            (Code::Unauthenticated, "etcdserver: invalid auth token", Kind::Token),
            (Code::PermissionDenied, "etcdserver: permission denied", Kind::Permission),
            (
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password",
                Kind::Permission,
            ),
            (Code::InvalidArgument, "etcdserver: user name is empty", Kind::Permission),
            (Code::NotFound, "etcdserver: requested lease not found", Kind::Lease),
            (Code::InvalidArgument, "etcdserver: request is too large", Kind::Other),
            (Code::Unimplemented, "unknown service", Kind::Other),
        ];
        for (code, words, want) in cases {
            assert_eq!(kind(&Status::new(code, words)), want, "{words}");
        }
    }

    #[test]
    fn what_to_do_stands_in_the_error() {
        let full = Status::resource_exhausted("etcdserver: mvcc: database space exceeded");
        let error = EtcdError::new("etcd at e:2379", "writing", Error::GRpcStatus(full));
        assert!(error.may_pass());
        let text = error.to_string();
        assert!(text.contains("e:2379") && text.contains("alarm disarm"), "{text}");
    }
}
