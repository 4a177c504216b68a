//! Which GPUs are whose: the engine gives the same ones to all who ask for a number of
//! them.

/// GPUs by their numbers: bit 0 is the first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gpus(u64);

impl Gpus {
    pub(super) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(super) fn bits(self) -> u64 {
        self.0
    }

    /// The first `wanted` of `all` that are not `taken`.
    ///
    /// # Errors
    /// A sentence, when there are not so many.
    pub(super) fn choose(
        wanted: u64,
        all: u64,
        taken: impl Iterator<Item = Self>,
    ) -> Result<Self, String> {
        let taken = taken.fold(0, |sum, of_one| sum | of_one.0);
        let mut chosen = 0;
        let mut left = wanted;
        for bit in (0..all.min(u64::BITS.into())).map(|n| 1 << n).filter(|bit| taken & bit == 0) {
            if left == 0 {
                break;
            }
            chosen |= bit;
            left -= 1;
        }
        match left {
            0 => Ok(Self(chosen)),
            _ => Err(format!(
                "{wanted} are wanted, and of the agent's {all} only {} are free",
                wanted - left
            )),
        }
    }

    /// As the engine's driver names them.
    pub(super) fn names(self) -> Vec<String> {
        (0..u64::BITS).filter(|n| self.0 & (1 << n) != 0).map(|n| n.to_string()).collect()
    }
}

#[cfg(test)]
mod tests {
    use mezz_proto::ids::ContainerId;

    use super::{
        super::{
            container::{Container, State},
            fake::{Answer, Fake},
            watch::unknown_end,
        },
        *,
    };

    #[tokio::test]
    async fn they_are_free_again_when_a_container_has_ended() {
        let inner = Fake::start(|_| Answer::Missing).inner(2);
        let take = |name: &str| {
            let id = ContainerId::new(name);
            let container = Container::new(id.clone(), State::Starting);
            inner.containers.lock().insert(id, container.clone());
            (inner.take_gpus(&container, 1).map(Gpus::names), container)
        };
        let (first, container) = take("c1");
        assert_eq!((first.unwrap(), take("c2").0.unwrap()), (vec!["0".into()], vec!["1".into()]));
        assert!(take("c3").0.is_err());
        container.set(State::Ended(unknown_end()));
        assert_eq!(take("c4").0.unwrap(), ["0"]);
    }

    #[test]
    fn each_is_given_once() {
        let choose = |wanted, all, taken: &[u64]| {
            let taken = taken.iter().copied().map(Gpus);
            Gpus::choose(wanted, all, taken).map(Gpus::names)
        };
        assert_eq!(choose(2, 4, &[]).unwrap(), ["0", "1"]);
        assert_eq!(choose(2, 4, &[0b1, 0b100]).unwrap(), ["1", "3"]);
        assert_eq!(choose(0, 0, &[]).unwrap(), [""; 0]);
        assert_eq!(choose(1, 64, &[u64::MAX >> 1]).unwrap(), ["63"]);
        let error = choose(2, 3, &[0b1, 0b100]).unwrap_err();
        assert_eq!(error, "2 are wanted, and of the agent's 3 only 1 are free");
        assert!(choose(1, 100, &[u64::MAX]).is_err());
    }
}
