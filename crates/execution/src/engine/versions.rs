//! The values that a location had, by place.

use super::memory::Place;

/// Values in the order of their places. Most locations are written once in a block: that one lies inside.
#[derive(Debug)]
pub(crate) struct Versions<T> {
    first: Option<(Place, T)>,
    rest: Option<Box<Rest<T>>>,
}

/// What comes after the first; as large as a pointer where there is nothing.
#[derive(Debug)]
struct Rest<T>(Vec<(Place, T)>);

impl<T> Default for Versions<T> {
    fn default() -> Self {
        Self { first: None, rest: None }
    }
}

impl<T: Copy> Versions<T> {
    /// The last one before `place`.
    #[inline]
    pub(crate) fn last_before(&self, place: Place) -> Option<(Place, T)> {
        let rest = self.rest();
        let end = rest.partition_point(|(p, _)| *p < place);
        match end.checked_sub(1) {
            Some(last) => Some(rest[last]),
            None => self.first.filter(|(p, _)| *p < place),
        }
    }

    /// The one value that there is, if there is one.
    #[inline]
    pub(crate) fn only(&self) -> Option<T> {
        self.first.filter(|_| self.rest().is_empty()).map(|(_, value)| value)
    }

    /// Those from one place to before another.
    pub(crate) fn between(&self, from: Place, to: Place) -> impl Iterator<Item = T> {
        let rest = self.rest();
        let start = rest.partition_point(|(p, _)| *p < from);
        let end = rest.partition_point(|(p, _)| *p < to).max(start);
        let first = self.first.filter(|(p, _)| (from..to).contains(p));
        first.into_iter().chain(rest[start..end].iter().copied()).map(|(_, value)| value)
    }

    /// Sets the value of a place.
    #[inline]
    pub(crate) fn insert(&mut self, place: Place, value: T) {
        self.merge(place, value, |_, new| new);
    }

    /// Sets the value of a place, or makes one of it and the one that is there.
    #[inline]
    pub(crate) fn merge(&mut self, place: Place, value: T, merged: impl FnOnce(T, T) -> T) {
        match &mut self.first {
            None => self.first = Some((place, value)),
            Some(first) if first.0 == place => first.1 = merged(first.1, value),
            Some(first) if first.0 > place => {
                let second = std::mem::replace(first, (place, value));
                self.rest_mut().insert(0, second);
            }
            Some(_) => {
                let rest = self.rest_mut();
                // Places come nearly in order.
                let at = match rest.last() {
                    Some((last, _)) if *last >= place => rest.partition_point(|(p, _)| *p < place),
                    _ => rest.len(),
                };
                match rest.get_mut(at) {
                    Some((p, old)) if *p == place => *old = merged(*old, value),
                    _ => rest.insert(at, (place, value)),
                }
            }
        }
    }

    /// Removes the value of a place, if it has one.
    pub(crate) fn remove(&mut self, place: Place) {
        if self.first.is_some_and(|(p, _)| p == place) {
            let rest = self.rest.as_mut().filter(|rest| !rest.0.is_empty());
            self.first = rest.map(|rest| rest.0.remove(0));
        } else if let Some(rest) = &mut self.rest {
            rest.0.retain(|(p, _)| *p != place);
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    #[inline]
    fn rest(&self) -> &[(Place, T)] {
        self.rest.as_ref().map_or(&[], |rest| &rest.0)
    }

    fn rest_mut(&mut self) -> &mut Vec<(Place, T)> {
        &mut self.rest.get_or_insert_with(|| Box::new(Rest(Vec::new()))).0
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
                let between: Vec<u32> = versions.between(3, seen_from).collect();
                let inside = expected.range(3..seen_from.max(3)).map(|(_, v)| *v);
                assert_eq!(between, inside.collect::<Vec<_>>(), "step {step}");
            }
            assert_eq!(versions.is_empty(), expected.is_empty());
            let only = expected.values().next().filter(|_| expected.len() == 1);
            assert_eq!(versions.only().as_ref(), only);
        }
    }
}
