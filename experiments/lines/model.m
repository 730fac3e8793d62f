% Answers points, in Octave or Matlab: jsondecode and jsonencode are built in. `fgetl` would wait for a line more.
while true
  try
    line = input("", "s");
  catch
    break  % there are no more points
  end
  p = jsondecode(line);
  answer = struct("point", p.point);
  if p.rate > 2
    answer.error = "rate is above 2";
  else
    answer.value = exp(-p.rate) * p.size;
  end
  fprintf("%s\n", jsonencode(answer));
  fflush(stdout);
end
