package loop

// timerHeap is a binary min-heap of tasks by timerAt; each task knows its index. A task is armed lazily: its key may be
// earlier than its deadline, and expire then moves it. So a session that arms the same idle timeout with every message
// touches the heap once per timeout, not once per message.
type timerHeap []*Task

// set puts t in at the given time, or moves it there.
func (h *timerHeap) set(t *Task, at int64) {
	t.timerAt = at
	if t.timerPos < 0 {
		t.timerPos = len(*h)
		*h = append(*h, t)
	}
	h.fix(t.timerPos)
}

// remove takes t out, if it is in.
func (h *timerHeap) remove(t *Task) {
	i := t.timerPos
	if i < 0 {
		return
	}
	last := len(*h) - 1
	h.swap(i, last)
	(*h)[last] = nil
	*h = (*h)[:last]
	t.timerPos = -1
	if i < last {
		h.fix(i)
	}
}

// fix restores the order after the key at i has changed.
func (h timerHeap) fix(i int) {
	for i > 0 && h[i].timerAt < h[(i-1)/2].timerAt {
		h.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(h); child++ {
			if h[child].timerAt < h[least].timerAt {
				least = child
			}
		}
		if least == i {
			return
		}
		h.swap(i, least)
		i = least
	}
}

func (h timerHeap) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].timerPos, h[j].timerPos = i, j
}
