//! The values that a location had, by place.

use super::memory::Place;

/// Values in the order of their places. Most locations are written once in a block: that one lies inside.
#[derive(Debug)]
pub(crate) struct Versions<T> {
    first: Option<(Place, T)>,
    rest: Vec<(Place, T)>,
}

impl<T> Default for Versions<T> {
    fn default() -> Self {
        Self { first: None, rest: Vec::new() }
    }
}

impl<T: Copy> Versions<T> {
    /// The last one before `place`.
    pub(crate) fn last_before(&self, place: Place) -> Option<(Place, T)> {
        let end = self.rest.partition_point(|(p, _)| *p < place);
        match end.checked_sub(1) {
            Some(last) => Some(self.rest[last]),
            None => self.first.filter(|(p, _)| *p < place),
        }
    }

    /// Sets the value of a place.
    pub(crate) fn insert(&mut self, place: Place, value: T) {
        match &mut self.first {
            None => self.first = Some((place, value)),
            Some(first) if first.0 == place => first.1 = value,
            Some(first) if first.0 > place => {
                let second = std::mem::replace(first, (place, value));
                self.rest.insert(0, second);
            }
            Some(_) => {
                let at = self.rest.partition_point(|(p, _)| *p < place);
                match self.rest.get_mut(at) {
                    Some((p, old)) if *p == place => *old = value,
                    _ => self.rest.insert(at, (place, value)),
                }
            }
        }
    }

    /// Removes the value of a place, if it has one.
    pub(crate) fn remove(&mut self, place: Place) {
        if self.first.is_some_and(|(p, _)| p == place) {
            self.first = (!self.rest.is_empty()).then(|| self.rest.remove(0));
        } else {
            self.rest.retain(|(p, _)| *p != place);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn is_a_map_by_place() {
        let mut versions = Versions::default();
        let mut expected = BTreeMap::new();
        // Every place of 0..7 comes and goes in an order without a pattern.
        for step in 0_u32..500 {
            let place = step.wrapping_mul(2_654_435_761) >> 29;
            if step % 3 == 0 {
                versions.remove(place);
                expected.remove(&place);
            } else {
                versions.insert(place, step);
                expected.insert(place, step);
            }
            for seen_from in 0..9 {
                let last = expected.range(..seen_from).next_back().map(|(p, v)| (*p, *v));
                assert_eq!(versions.last_before(seen_from), last, "step {step}");
            }
            assert_eq!(versions.is_empty(), expected.is_empty());
        }
    }
}
