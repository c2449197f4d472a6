"""Text that attacks whoever shows it."""

EVIL = "</script><script>window.pwned = 1</script><img src=x onerror='window.pwned = 2'>\" ' & \x00\x1b[2J\u2028"
