# Means and standard deviations of normal samples: R writes rows, and needs nothing of EMS but two variables.

number_of <- function(text, name) as.numeric(sub(paste0('.*"', name, '": *([0-9.]+).*'), "\\1", text))
numbers_of <- function(text, name) {
  inside <- sub(paste0('.*"', name, '": *\\[([^]]*)\\].*'), "\\1", text)
  as.numeric(strsplit(inside, ",")[[1]])
}

parameters <- paste(readLines(Sys.getenv("EMS_PARAMETERS"), warn = FALSE), collapse = " ")
set.seed(number_of(parameters, "seed"))
results <- file(file.path(Sys.getenv("EMS_RESULTS_DIR"), "rnorm.csv"), open = "w")
writeLines("size,replicate,mean,sd", results)
for (size in numbers_of(parameters, "sizes")) {
  for (replicate in seq_len(number_of(parameters, "replicates"))) {
    x <- rnorm(size)
    writeLines(sprintf("%d,%d,%.17g,%.17g", as.integer(size), replicate, mean(x), sd(x)), results)
  }
  flush(results)
  cat("size", size, "done\n")
}
close(results)
