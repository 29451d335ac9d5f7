//! Requests whose caches are deleted while their rows are read.
//!
//! The index is asked first and rows are read afterwards, so a cache can go in between: its file stays a while for those
//! who were told of it ([`residuum_store::KeepDeleted`]), but not for ever. Then the rows are gone, not damaged, and the
//! index is asked anew: what a filter found is found again without the cache, and what the request names is refused as
//! it would have been, had the request come a moment later.

use residuum_domain::{Code, Problem};

/// Times that a request is answered before it is refused.
const ATTEMPTS: usize = 4;

/// Answers a request, anew where a cache was deleted while its rows were read. A request that this happens to again and
/// again is refused with `code`, which its route has for caches that are not there.
///
/// # Errors
/// Those of `answer`; `code`.
pub async fn again<T, F>(code: Code, mut answer: impl FnMut() -> F) -> Result<T, Problem>
where
    F: Future<Output = Result<T, Problem>>,
{
    for _ in 1..ATTEMPTS {
        match answer().await {
            Err(problem) if problem.code == Code::CacheNotFound => {
                tracing::debug!(%problem, "a cache was deleted while it was read; the index is asked again");
            }
            done => return done,
        }
    }
    answer().await.map_err(|problem| match problem.code {
        Code::CacheNotFound => Problem::new(code, "caches were deleted while they were read; ask again"),
        _ => problem,
    })
}

/// A cache that a request names at `pointer`, deleted while it was read, is one that is not there.
pub fn as_unknown(problem: Problem, pointer: &str) -> Problem {
    match problem.code {
        Code::CacheNotFound => Problem::at(Code::UnknownCache, pointer, problem.detail),
        _ => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone() -> Problem {
        Problem::new(Code::CacheNotFound, "the cache was deleted while it was read")
    }

    #[tokio::test]
    async fn what_is_gone_is_looked_for_again_a_few_times() {
        let mut calls = 0;
        let found = again(Code::UnknownCache, || {
            calls += 1;
            let answer = if calls < 3 { Err(gone()) } else { Ok(calls) };
            async { answer }
        });
        assert_eq!(found.await.unwrap(), 3);
        let mut calls = 0;
        let never = again(Code::Conflict, || {
            calls += 1;
            async { Err::<(), _>(gone()) }
        });
        assert_eq!(never.await.unwrap_err().code, Code::Conflict);
        assert_eq!(calls, ATTEMPTS);
        let other = again(Code::Conflict, || async { Err::<(), _>(Problem::new(Code::BlobDamaged, "short")) });
        assert_eq!(other.await.unwrap_err().code, Code::BlobDamaged);
    }
}
