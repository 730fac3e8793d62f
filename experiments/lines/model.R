# Answers points with base R alone: the parameters are taken from the line, and the answer is put together as text.
value <- function(line, name) {
  as.numeric(sub(paste0('.*"', name, '": *([-+0-9.eE]+).*'), "\\1", line))
}

points <- file("stdin", "r")
while (length(line <- readLines(points, n = 1)) > 0) {
  rate <- value(line, "rate")
  answer <- tryCatch({
    if (rate > 2) stop("rate is above 2")
    sprintf('"value": %.17g', exp(-rate) * value(line, "size"))
  }, error = function(e) sprintf('"error": "%s"', conditionMessage(e)))
  cat(sprintf('{"point": %d, %s}\n', as.integer(value(line, "point")), answer))
  flush(stdout())
}
