//! Handles requests whose caches are deleted while their rows are read.
//!
//! A request first queries the index and then reads rows, so a cache can be deleted in between. Its file is kept for a
//! while ([`residuum_store::KeepDeleted`]), but not for ever. If the rows are gone then, they are not damaged: the
//! index is queried again. A filter then no longer finds the cache, and a request that names it is refused, as if the
//! request had come a moment later.

use residuum_domain::{Code, Problem};

/// How often a request is tried before it is refused.
const ATTEMPTS: usize = 4;

/// Answers a request, and tries again if a cache was deleted while its rows were read. A request that meets this every
/// time is refused with `code`, which is what its route returns for caches that do not exist.
///
/// # Errors
/// Those of `answer`, and `code`.
pub async fn again<T, F>(code: Code, mut answer: impl FnMut() -> F) -> Result<T, Problem>
where
    F: Future<Output = Result<T, Problem>>,
{
    for _ in 1..ATTEMPTS {
        match answer().await {
            Err(problem) if problem.code == Code::CacheNotFound => {
                tracing::debug!(%problem, "a cache was deleted while it was read; the index is queried again");
            }
            done => return done,
        }
    }
    answer().await.map_err(|problem| match problem.code {
        Code::CacheNotFound => Problem::new(code, "caches were deleted while they were read; try again"),
        _ => problem,
    })
}

/// Lets a cache that a request names at `pointer`, and that was deleted while it was read, count as unknown.
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
    async fn a_request_that_meets_deleted_caches_is_tried_again_a_few_times() {
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
