// Which thread works on which part of a tensor. Both passes have two steps: the second needs the sums of the first.

#pragma once

#include "layout.h"

#include <algorithm>

#ifdef _OPENMP
extern "C" int omp_get_thread_num();
extern "C" int omp_get_num_threads();
#endif

namespace {

struct Team {
#ifdef _OPENMP
    int thread = omp_get_thread_num(), threads = omp_get_num_threads();
#else
    int thread = 0, threads = 1;
#endif

    Index begin(Index all) const { return all * thread / threads; }
    Index end(Index all) const { return all * (thread + 1) / threads; }
};

// Calls collect(part, number) for every part of the tensor, finish(channel, parts) when the sums of a channel are
// complete, and then use(part) for every part. A thread takes all channels of some units: this is the order of memory,
// and faster than channel by channel, although a channel would still be in the cache for `use`. Where units are few,
// and channels more, a thread takes some channels of all of them. The same number of threads adds up in the same order
// each time.
template <class Layout, class Collect, class Finish, class Use>
void in_two_steps(const Layout& layout, const Plan& plan, Collect collect, Finish finish, Use use) {
#pragma omp parallel num_threads(int(plan.threads))
    {
        const Team team;
        Scratch scratch(layout.scratch());
        const Index units = layout.units();
        if (units < 4 * plan.threads && units < plan.channels && layout.divides_channels()) {
            const Index end = team.end(plan.channels), at_a_time = layout.channels_at_a_time();
            for (Index c = team.begin(plan.channels); c < end; c += at_a_time) {
                const Part part{c, std::min(end, c + at_a_time), 0, units};
                collect(part, 0, scratch);
                for (Index k = part.channel; k < part.channels_end; k++) finish(k, 1);
                use(part, scratch);
            }
        } else {
            const Part part{0, plan.channels, team.begin(units), team.end(units)};
            collect(part, team.thread, scratch);
#pragma omp barrier
            for (Index k = team.begin(plan.channels); k < team.end(plan.channels); k++) finish(k, team.threads);
#pragma omp barrier
            use(part, scratch);
        }
    }
}

}  // namespace
