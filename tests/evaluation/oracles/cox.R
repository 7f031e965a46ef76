# Cox regression with Efron's ties and the test of proportional hazards, by survival::coxph and cox.zph.
suppressMessages(library(survival))
here <- commandArgs(TRUE)[1]
d <- read.csv(file.path(here, "years.csv"))
d$risk <- ave(d$risk, d$fold, FUN = function(v) (v - mean(v)) / sqrt(mean((v - mean(v))^2)))
d$age <- d$age / 10
cat("number,at,value\n")
say <- function(kind, formula) {
  fit <- coxph(formula, data = d, ties = "efron", control = coxph.control(eps = 1e-11, iter.max = 100))
  s <- summary(fit)
  test <- cox.zph(fit, transform = "rank", global = FALSE)$table
  for (name in rownames(test)) {
    row <- c(hazard_ratio = s$conf.int[name, 1], low = s$conf.int[name, 3], high = s$conf.int[name, 4],
      p = s$coefficients[name, 5], ph_p = test[name, 3])
    cat(sprintf("%s_%s,%s,%.17g\n", kind, names(row), name, row), sep = "")
  }
}
for (name in c("risk", "age", "female", "stage")) say("alone", reformulate(name, "Surv(time, event)"))
say("adjusted", Surv(time, event) ~ risk + age + female + stage)
