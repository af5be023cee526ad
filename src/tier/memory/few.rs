//! Some things, mostly none or one: that one lies in place, and only more of them cost an allocation.
//!
//! It is made where it is used and filled by reference: what is moved as a whole right after it was written in pieces is waited for.

/// Any number of things, in the order they came.
#[derive(Debug)]
pub(crate) struct Few<T> {
    first: Option<T>,
    more: Vec<T>,
}

impl<T> Few<T> {
    /// None of them.
    #[inline]
    pub(crate) const fn new() -> Self {
        Self { first: None, more: Vec::new() }
    }

    // Always, and `take_each` too: then it is known at its end that nothing is left to be dropped.
    #[inline(always)]
    pub(crate) fn push(&mut self, one: T) {
        if self.first.is_none() {
            self.first = Some(one);
        } else {
            self.more.push(one);
        }
    }

    /// Takes all of them out, in their order.
    #[inline(always)]
    pub(crate) fn take_each(&mut self, mut take: impl FnMut(T)) {
        if let Some(first) = self.first.take() {
            take(first);
            if !self.more.is_empty() {
                self.more.drain(..).for_each(take);
            }
        }
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(&self.more)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.iter().count()
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::Few;

    #[test]
    fn what_was_pushed_comes_out_once_and_in_order() {
        let mut few = Few::new();
        let taken = |few: &mut Few<u8>| {
            let mut taken = Vec::new();
            few.take_each(|one| taken.push(one));
            taken
        };
        assert!(taken(&mut few).is_empty());
        for n in 1..=3 {
            few.push(n);
        }
        assert_eq!(few.iter().copied().collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(taken(&mut few), [1, 2, 3]);
        few.push(4);
        assert_eq!(taken(&mut few), [4]);
    }
}
