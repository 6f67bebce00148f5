"""Rollouts: engines that sample tokens, the driver that plays an episode, and the record both leave behind."""
